#!lua flags=allow-oom
-- Takes in what became of leased deliveries, with the record of each attempt.
-- ARGV 2 dead letter limit  3 ms of failing after which a subscription is disabled  4 results (MessagePack, each an array: sub,
--        id, token, outcome, delay ms or reason, Retry-After ms or 0, weight of the failure, ev, copy, type, attempts made,
--        status or 0, error, latency bucket, µs to the answer, the event's nonce, what its tenant stores with it, as `owe` keeps
--        it); where nothing was sent, the last two and the type are nil and the bucket is -1
--      5… the record of each result's attempt, or "" (apart, since cmsgpack reads no binary)
-- Outcomes: ok | retry | dead | gone (dead, and the subscription is disabled) | release (was not sent: does not count)
-- Returns {now, next due or "", indexes from 0 of results that were no longer held, {sub, why} of each disabled}
-- A repeated settle changes nothing: counters move only for an entry that is held, or delivered while it was pending. What is
-- alike for all results of a subscription is done once, after them.
local maxDead, disableAfter = tonumber(ARGV[2]), tonumber(ARGV[3])
-- The events of what was delivered, and what the tenant of each has stored with it. Of each subscription: its state; who holds
-- each entry; and what is done once for several.
local results, stale, delivered, owed, touched = cmsgpack.unpack(ARGV[4]), {}, {}, {}, {}
for _, result in ipairs(results) do
  local sub, id = result[1], result[2]
  local t = touched[sub]
  if not t then
    t = { r = load(sub), ids = {}, holders = {}, ended = {}, isEnded = {}, delivered = 0, counts = {}, attempts = {}, isPlain = true }
    touched[sub] = t
  end
  t.ids[#t.ids + 1] = id
end
for sub, t in pairs(touched) do
  for i, token in ipairs(call('HMGET', key('tok', sub), unpack(t.ids))) do t.holders[t.ids[i]] = token end
end

local function release(sub, id, delay)
  local pending = pendingEntry(sub, id)
  if pending then call('XCLAIM', key('dlv', sub), 'senders', 's', 0, id, 'RETRYCOUNT', math.max(0, pending[4] - 1), 'JUSTID') end
  call('ZADD', key('rty', sub), now + math.max(1, delay), id)
end

-- Statuses past 599 count as 5xx (RFC 9110 §15).
local function countAttempt(counts, status, bucket, micros)
  if bucket < 0 then return end
  local class, latency = 's' .. math.min(5, math.floor(status / 100)), 'b' .. bucket
  counts[class], counts[latency] = (counts[class] or 0) + 1, (counts[latency] or 0) + 1
  counts.us = (counts.us or 0) + micros
end

-- Notes where a delivery stands after an attempt. Before a first one of its holder's nothing is noted that is to be read.
local function noteAttempt(result, state, attempt, mine)
  local sub, id, ev, copy, attempts, status = result[1], result[2], result[8], result[9], result[11], result[12]
  if attempts ~= 1 or not mine then return note(ev, sub, copy, state, id, attempts, status, attempt) end
  call('HSET', key('evs', ev), sub .. '#' .. copy, state .. ' ' .. id .. ' 1 ' .. int(status) .. ' ' .. attempt)
  return result[17]
end

local function settle(result, text)
  local sub, id, token, outcome, arg, away, weight, ev, copy, type, attempts, status, error, bucket, micros, nonce = unpack(result, 1, 16)
  local t, r = touched[sub], touched[sub].r
  -- An entry that an earlier result of this call has ended is pending until the end of the call. What is held is pending.
  local isOpen = r and not t.isEnded[id]
  local mine, attempt = isOpen and t.holders[id] == token or false, nil
  if text ~= '' then
    attempt = keepAttempt(t.attempts, outcome == 'ok', status, type, text, 'l', mine and '0' or '1')
    t.hasAttempt = true
  end
  if not mine or outcome ~= 'ok' then t.isPlain = false end
  if not (mine or isOpen and outcome == 'ok' and pendingEntry(sub, id)) then return false end

  countAttempt(t.counts, status, bucket, micros)
  local began = tonumber(token:match('^%d+'))
  if outcome == 'ok' then
    owed[ev] = noteAttempt(result, 'k', attempt, mine)
    t.delivered, delivered[#delivered + 1] = t.delivered + 1, ev
    if mine then succeed(sub, r, began, type) end
  elseif outcome == 'retry' then
    call('ZADD', key('rty', sub), now + arg, id)
    noteAttempt(result, 'p', attempt, mine)
    fail(sub, r, began, weight, type, disableAfter)
  elseif outcome == 'release' then
    release(sub, id, arg)
  else
    bury(sub, { ev = ev, copy = copy, type = type, nonce = nonce, attempts = attempts, why = arg, status = status, error = error,
      entry = id, attempt = attempt }, maxDead)
    if outcome == 'gone' then
      disable(sub, r, 'gone', '410', type)
    elseif weight > 0 then
      fail(sub, r, began, weight, type, disableAfter)
    end
  end
  keepAway(sub, r, away)
  local isOver = outcome ~= 'retry' and outcome ~= 'release'
  if isOver then t.ended[#t.ended + 1], t.isEnded[id] = id, true else t.holders[id] = false end
  -- Those that are done again if a later one breaks this call off must not be held any more: each would be a dead letter more.
  if outcome ~= 'ok' then
    call('ZREM', key('inf', sub), id)
    call('HDEL', key('tok', sub), id, outcome ~= 'release' and id .. '#' or '')
  end
  return mine
end

for i, result in ipairs(results) do
  if not settle(result, ARGV[4 + i]) then stale[#stale + 1] = i - 1 end
end
-- What may be refused comes first: what is below then happens as a whole.
for sub, t in pairs(touched) do tally(sub, t.counts) listAttempts(sub, t.attempts) end
for sub, t in pairs(touched) do
  if t.r and t.hasAttempt then set(sub, 'last', now) end
  if t.r and t.delivered > 0 then set(sub, 'ok', t.r.ok + t.delivered) end
  if #t.ended > 0 then
    (t.isPlain and letGo or forget)(sub, unpack(t.ended))
    call('XACK', key('dlv', sub), 'senders', unpack(t.ended))
    call('XDEL', key('dlv', sub), unpack(t.ended))
  end
  if t.r and t.isPlain then takeAway(sub, t.r, t.ended) elseif t.r then arrange(sub, t.r) end
end
mirror()
-- Last, so that what is settled once more takes no reference away again.
unref(delivered, owed)
ring()
return { now, firstDue(), stale, disabled }
