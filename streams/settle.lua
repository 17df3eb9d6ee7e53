#!lua flags=allow-oom
-- Takes in what became of leased deliveries, with the record of each attempt.
-- ARGV 2 dead letter limit  3 results (MessagePack, each an array: sub, id, token, outcome, delay ms or reason,
--        Retry-After ms or 0, weight of the failure, ev, copy, type, attempts made, status or 0, error)
--      4… the record of each result's attempt, or "" (apart, since cmsgpack reads no binary)
-- Outcomes: ok | retry | dead | gone (dead, and the subscription is disabled) | release (was not sent: does not count)
-- Returns {now, next due or "", indexes from 0 of results that were no longer held}
-- A repeated settle changes nothing: counters move only for an entry that is held, or delivered while it was pending.
local BREAKER_FAILURES, BREAKER_MS, BREAKER_HOLD = 5, 10000, 500
local maxDead = tonumber(ARGV[2])
local touched, stale = {}, {}

local function touch(sub)
  if not touched[sub] then touched[sub] = { r = load(sub), done = {}, isDone = {} } end
  return touched[sub]
end

local function record(sub, outcome, status, type, text, late)
  if text == '' then return nil end
  local id = call('XADD', P .. ':attempts', '*', 'r', text, 'l', late and 1 or 0)
  local ms, seq = id:match('(%d+)-(%d+)')
  local hash = tonumber(redis.sha1hex(type):sub(1, 8), 16)
  call('RPUSH', key('att', sub), struct.pack('>I6I4BBI4', tonumber(ms), tonumber(seq), outcome == 'ok' and 1 or 0,
    math.floor(status / 100), hash))
  return id
end

-- Failures that began before an earlier one was known are one failure with it: ten requests that fail together are one.
-- Those before the breaker opens do not lengthen its first hold, however many there were; each after it doubles the next.
local function fail(sub, r, began, weight)
  if began <= r.cfl then return end
  if r.cf == 0 then r.cfat = now end
  r.cf, r.cfl = r.hold > 0 and r.cf + weight or math.min(r.cf + weight, BREAKER_FAILURES), now
  if r.cf >= BREAKER_FAILURES and now - r.cfat >= BREAKER_MS then
    r.hold = now + math.min(HOLD_MAX, BREAKER_HOLD * 2 ^ math.min(r.cf - BREAKER_FAILURES, 12))
  end
  call('HSET', key('rt', sub), 'cf', r.cf, 'cfat', r.cfat, 'cfl', r.cfl, 'hold', r.hold)
end

local function succeed(sub, r, began)
  if r.cf == 0 or began <= r.cfl then return end
  r.cf, r.cfat, r.hold = 0, 0, 0
  call('HSET', key('rt', sub), 'cf', 0, 'cfat', 0, 'hold', 0)
end

local function keepAway(sub, r, ms)
  if ms == 0 or not r then return end
  r.ra = math.max(r.ra, now + math.min(ms, RETRY_AFTER_MAX))
  call('HSET', key('rt', sub), 'ra', r.ra)
end

local function release(sub, id, pending, delay)
  call('XCLAIM', key('dlv', sub), 'senders', 's', 0, id, 'RETRYCOUNT', math.max(0, pending[4] - 1), 'JUSTID')
  call('ZADD', key('rty', sub), now + math.max(1, delay), id)
end

local function disable(sub, r, reason)
  if r.st == 'd' then return end
  local version = call('XADD', P .. ':cfglog', 'MAXLEN', '~', 10000, '*', 's', sub)
  call('HSET', P .. ':cfgv', call('HGET', key('rt', sub), 'tn') or '', version)
  call('HSET', key('rt', sub), 'st', 'x', 'why', reason, 'since', now, 'v', version)
  r.st, r.v = 'x', version
end

local function settle(result, text)
  local sub, id, token, outcome, arg, away, weight, ev, copy, type, attempts, status, error = unpack(result, 1, 13)
  local t = touch(sub)
  local r = t.r
  -- An entry that an earlier result of this call has ended is pending until the end of the call.
  local pending = r and not t.isDone[id] and pendingEntry(sub, id)
  local mine = pending and call('HGET', key('tok', sub), id) == token or false
  local attempt = record(sub, outcome, status, type, text, not mine)
  if attempt and r then call('HSET', key('rt', sub), 'last', now) end
  if not (mine or pending and outcome == 'ok') then return false end

  local began = tonumber(token:match('^%d+'))
  local done = outcome ~= 'retry' and outcome ~= 'release'
  if outcome == 'ok' then
    note(ev, sub, copy, 'k', id, attempts, status, attempt)
    call('HINCRBY', key('rt', sub), 'ok', 1)
    if mine then succeed(sub, r, began) end
  elseif outcome == 'retry' then
    call('ZADD', key('rty', sub), now + arg, id)
    note(ev, sub, copy, 'p', id, attempts, status, attempt)
    fail(sub, r, began, weight)
  elseif outcome == 'release' then
    release(sub, id, pending, arg)
  else
    bury(sub, { ev = ev, copy = copy, type = type, attempts = attempts, why = arg, status = status, error = error,
      entry = id, attempt = attempt }, maxDead)
    if outcome == 'gone' then disable(sub, r, '410') elseif weight > 0 then fail(sub, r, began, weight) end
  end
  keepAway(sub, r, away)
  call('ZREM', key('inf', sub), id)
  if done then
    t.done[#t.done + 1], t.isDone[id] = id, true
    forget(sub, id)
    if outcome == 'ok' then unref(ev) end
  else
    call('HDEL', key('tok', sub), id, outcome == 'retry' and id .. '#' or '')
  end
  return mine
end

for i, result in ipairs(cmsgpack.unpack(ARGV[3])) do
  if not settle(result, ARGV[3 + i]) then stale[#stale + 1] = i - 1 end
end
for sub, t in pairs(touched) do
  if #t.done > 0 then
    call('XACK', key('dlv', sub), 'senders', unpack(t.done))
    call('XDEL', key('dlv', sub), unpack(t.done))
  end
  if t.r then plan(sub, t.r) end
end
ring()
return { now, rest(), stale }
