#!lua flags=allow-oom
-- Takes in what became of leased deliveries, with the record of each attempt.
-- ARGV 2 dead letter limit  3 ms of failing after which a subscription is disabled  4 results (MessagePack, each an array: sub,
--        id, token, outcome, delay ms or reason, Retry-After ms or 0, weight of the failure, ev, copy, type, attempts made,
--        status or 0, error, latency bucket, µs to the answer, the event's nonce); where nothing was sent, type and nonce
--        are nil and the bucket is -1
--      5… the record of each result's attempt, or "" (apart, since cmsgpack reads no binary)
-- Outcomes: ok | retry | dead | gone (dead, and the subscription is disabled) | release (was not sent: does not count)
-- Returns {now, next due or "", indexes from 0 of results that were no longer held, {sub, why} of each disabled}
-- A repeated settle changes nothing: counters move only for an entry that is held, or delivered while it was pending.
local maxDead, disableAfter = tonumber(ARGV[2]), tonumber(ARGV[3])
local touched, stale = {}, {}

local function touch(sub)
  if not touched[sub] then touched[sub] = { r = load(sub), done = {}, isDone = {}, delivered = {}, counts = {} } end
  return touched[sub]
end

local function release(sub, id, pending, delay)
  call('XCLAIM', key('dlv', sub), 'senders', 's', 0, id, 'RETRYCOUNT', math.max(0, pending[4] - 1), 'JUSTID')
  call('ZADD', key('rty', sub), now + math.max(1, delay), id)
end

-- Statuses past 599 count as 5xx (RFC 9110 §15).
local function countAttempt(counts, status, bucket, micros)
  if bucket < 0 then return end
  local class, latency = 's' .. math.min(5, math.floor(status / 100)), 'b' .. bucket
  counts[class], counts[latency] = (counts[class] or 0) + 1, (counts[latency] or 0) + 1
  counts.us = (counts.us or 0) + micros
end

local function settle(result, text)
  local sub, id, token, outcome, arg, away, weight, ev, copy, type, attempts, status, error, bucket, micros, nonce = unpack(result, 1, 16)
  local t = touch(sub)
  local r = t.r
  -- An entry that an earlier result of this call has ended is pending until the end of the call.
  local pending = r and not t.isDone[id] and pendingEntry(sub, id)
  local mine = pending and call('HGET', key('tok', sub), id) == token or false
  local attempt = text ~= '' and keepAttempt(sub, outcome == 'ok', status, type, text, 'l', mine and 0 or 1) or nil
  if attempt and r then call('HSET', key('rt', sub), 'last', now) end
  if not (mine or pending and outcome == 'ok') then return false end

  countAttempt(t.counts, status, bucket, micros)
  local began = tonumber(token:match('^%d+'))
  local done = outcome ~= 'retry' and outcome ~= 'release'
  if outcome == 'ok' then
    note(ev, sub, copy, 'k', id, attempts, status, attempt)
    call('HINCRBY', key('rt', sub), 'ok', 1)
    if mine then succeed(sub, r, began, type) end
  elseif outcome == 'retry' then
    call('ZADD', key('rty', sub), now + arg, id)
    note(ev, sub, copy, 'p', id, attempts, status, attempt)
    fail(sub, r, began, weight, type, disableAfter)
  elseif outcome == 'release' then
    release(sub, id, pending, arg)
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
  call('ZREM', key('inf', sub), id)
  if done then
    t.done[#t.done + 1], t.isDone[id] = id, true
    forget(sub, id)
    if outcome == 'ok' then t.delivered[#t.delivered + 1] = ev end
  else
    call('HDEL', key('tok', sub), id, outcome == 'retry' and id .. '#' or '')
  end
  return mine
end

for i, result in ipairs(cmsgpack.unpack(ARGV[4])) do
  if not settle(result, ARGV[4 + i]) then stale[#stale + 1] = i - 1 end
end
for sub, t in pairs(touched) do
  tally(sub, t.counts)
  if #t.done > 0 then
    call('XACK', key('dlv', sub), 'senders', unpack(t.done))
    call('XDEL', key('dlv', sub), unpack(t.done))
    -- Last, so that what is settled once more takes no reference away again.
    for _, ev in ipairs(t.delivered) do unref(ev) end
  end
  if t.r then plan(sub, t.r) end
end
ring()
return { now, rest(), stale, disabled }
