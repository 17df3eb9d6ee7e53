-- What every script shares: inlined below its first line, so it runs within the same call.
-- KEYS[1] = P:due (routes the call to the shard's server)   ARGV[1] = P, the shard's key prefix
-- Within a script additions come first and removals last: one that is cut short can only duplicate, never lose.
local P, call = ARGV[1], redis.call
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local HOLD_MAX, RETRY_AFTER_MAX = 300000, 3600000
local ATTEMPTS_KEPT = 20
local STATISTICS_HOURS = 192

local function key(name, id) return P .. ':' .. name .. ':' .. id end

-- Whether the stream id a comes before b.
local function before(a, b)
  local ams, aseq = a:match('(%d+)-(%d+)')
  local bms, bseq = b:match('(%d+)-(%d+)')
  return tonumber(ams) < tonumber(bms) or ams == bms and tonumber(aseq) < tonumber(bseq)
end

-- The fields of a stream entry by name.
local function fields(entry)
  local named = {}
  for i = 1, #entry[2], 2 do named[entry[2][i]] = entry[2][i + 1] end
  return named
end

-- What the group keeps of an entry that it has handed out ({id, consumer, idle ms, times handed out}); nil where it is not
-- pending. A missing group is mended by lease.lua; it must not stop another script half-way.
local function pendingEntry(sub, id)
  return redis.pcall('XPENDING', key('dlv', sub), 'senders', id, id, 1)[1]
end

-- The oldest entry that is not done; nil when none is.
local function pendingHead(sub)
  return redis.pcall('XPENDING', key('dlv', sub), 'senders', '-', '+', 1)[1]
end

-- The runtime state of a subscription, or nil where there is none. A clock that stepped back strands nothing: what lies
-- further ahead than it can be is cut.
local function load(sub)
  local f = call('HMGET', key('rt', sub), 'st', 'cap', 'T', 'B', 'tat', 'fifo', 'cf', 'cfat', 'cfl', 'hold', 'ra', 'v',
    'n0', 'n1', 'n2', 'n3', 'old', 'down')
  if not f[1] then return nil end
  local interval, burst = tonumber(f[3]), tonumber(f[4])
  return {
    st = f[1], cap = tonumber(f[2]), interval = interval, burst = burst,
    tat = math.min(tonumber(f[5] or 0), now + burst * interval),
    fifo = f[6] == '1', cf = tonumber(f[7] or 0), cfat = tonumber(f[8] or 0), cfl = tonumber(f[9] or 0),
    hold = math.min(tonumber(f[10] or 0), now + HOLD_MAX), ra = math.min(tonumber(f[11] or 0), now + RETRY_AFTER_MAX),
    v = f[12], counts = { tonumber(f[13] or 0), tonumber(f[14] or 0), tonumber(f[15] or 0), tonumber(f[16] or 0) },
    old = f[17] or '', down = tonumber(f[18] or 0),
  }
end

-- The earliest time of the next send: rate limit, breaker, Retry-After.
local function gate(r)
  local allowed = r.interval > 0 and r.tat - (r.burst - 1) * r.interval or 0
  return math.max(now, allowed, r.hold, r.ra)
end

-- Requests under way at once. A breaker that has opened lets through one at a time, until one succeeds.
local function cap(r) if r.fifo or r.hold > 0 then return 1 end return r.cap end

-- Sends that the rate limit allows now (GCRA).
local function tokens(r)
  if r.interval == 0 then return math.huge end
  return math.floor(((r.burst - 1) * r.interval - (math.max(r.tat, now) - now)) / r.interval) + 1
end

local COUNTED = { 'fresh', 'waiting', 'leased', 'dead' }

-- Mirrors a subscription's counts and its oldest entry into P:cnt and P:old. Only differences travel: drift mends itself.
local function count(sub, r, counts)
  local changed = {}
  for i, name in ipairs(COUNTED) do
    if counts[i] ~= r.counts[i] then
      call('HINCRBY', P .. ':cnt', name, counts[i] - r.counts[i])
      changed[#changed + 1], changed[#changed + 2] = 'n' .. (i - 1), counts[i]
    end
  end
  local head = counts[1] + counts[2] + counts[3] > 0 and call('XRANGE', key('dlv', sub), '-', '+', 'COUNT', 1)[1]
  local old = head and head[1]:match('^%d+') or ''
  if old ~= r.old then
    if head then call('ZADD', P .. ':old', old, sub) else call('ZREM', P .. ':old', sub) end
    changed[#changed + 1], changed[#changed + 2] = 'old', old
  end
  if #changed > 0 then call('HSET', key('rt', sub), unpack(changed)) end
  r.counts, r.old = counts, old
end

-- When anything can be done for a subscription next; nil when nothing can.
local function nextDue(sub, r, fresh, waiting, leased)
  local inf, rty = key('inf', sub), key('rty', sub)
  local live, due = 0, math.huge
  if leased > 0 then
    local first = call('ZRANGEBYSCORE', inf, '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    if first[1] then live, due = call('ZCOUNT', inf, '(' .. now, '+inf'), tonumber(first[2]) end
  end
  if live >= cap(r) then return due end
  local open = gate(r)
  if r.fifo then
    local head = pendingHead(sub)
    local retry = head and call('ZSCORE', rty, head[1])
    return math.min(due, retry and math.max(tonumber(retry), open) or open)
  end
  if leased > live or fresh > 0 then due = math.min(due, open) end
  if waiting > 0 then due = math.min(due, math.max(tonumber(call('ZRANGE', rty, 0, 0, 'WITHSCORES')[2]), open)) end
  return due
end

local somethingIsDue = false

-- Puts a subscription where P:due must have it: at the time when anything can be done for it, or nowhere. One that is due
-- already keeps its place, however often it is planned; a lease, which says how early it may have its next turn (or false),
-- sends it to the end of the line.
local function plan(sub, r, earliest)
  r = r or load(sub)
  if not r then call('ZREM', KEYS[1], sub) return end
  local entries, leased, waiting = call('XLEN', key('dlv', sub)), call('ZCARD', key('inf', sub)), call('ZCARD', key('rty', sub))
  local fresh = entries - leased - waiting
  count(sub, r, { fresh, waiting, leased, call('XLEN', key('dead', sub)) })
  if r.st ~= 'a' or entries == 0 then call('ZREM', KEYS[1], sub) return end
  local due = nextDue(sub, r, fresh, waiting, leased)
  if due == math.huge then due = now end
  if earliest then due = math.max(due, earliest) end
  if due <= now then somethingIsDue = true end
  if due <= now and earliest == nil then call('ZADD', KEYS[1], 'LT', due, sub) else call('ZADD', KEYS[1], due, sub) end
end

-- Wakes senders that sleep, when something fell due. A hint only: it may be lost.
local function ring()
  if somethingIsDue and call('DEL', P .. ':asleep') == 1 then call('SPUBLISH', P .. ':bell', P) end
end

-- When something is due next, or "". With nothing due now senders go to sleep: from here on they want to be woken.
local function rest()
  local due = call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
  if not due or tonumber(due) > now then call('SET', P .. ':asleep', 1, 'PX', 7000) end
  return due or ''
end

-- Lets the status of an event that nothing waits for age, for as long as attempts are kept.
local statusMs
local function expire(ev)
  statusMs = statusMs or call('HGET', P .. ':meta', 'keep') or 604800000
  call('PEXPIRE', key('evs', ev), statusMs)
end

-- Counts an event that somebody is owed among what its tenant stores. Its status keeps how much that is.
local function owe(ev, tenant, bytes)
  call('HSET', key('evs', ev), 'o', bytes .. ' ' .. tenant)
  call('HINCRBY', P .. ':owed', tenant, bytes)
end

-- One entry less names each of these events. With its last one nobody is owed it any more: its tenant has so much less
-- stored, its spilled body goes, and its status begins to age.
local function unref(events)
  local gone, bodies, freed = {}, {}, {}
  for _, ev in ipairs(events) do
    if call('HINCRBY', P .. ':refs', ev, -1) <= 0 then
      local bytes, tenant = (call('HGET', key('evs', ev), 'o') or ''):match('^(%d+) (.+)$')
      if tenant then
        freed[tenant] = (freed[tenant] or 0) + bytes
        call('HDEL', key('evs', ev), 'o')
      end
      gone[#gone + 1], bodies[#bodies + 1] = ev, key('pay', ev)
    end
  end
  if #gone == 0 then return end
  for tenant, bytes in pairs(freed) do
    if call('HINCRBY', P .. ':owed', tenant, -bytes) <= 0 then call('HDEL', P .. ':owed', tenant) end
  end
  call('HDEL', P .. ':refs', unpack(gone))
  local isCut = call('EXISTS', P .. ':exp') == 1
  for _, ev in ipairs(gone) do
    if not isCut or call('HEXISTS', P .. ':exp', ev) == 0 then expire(ev) end
  end
  call('UNLINK', unpack(bodies))
end

-- Notes where a delivery stands, if its event's status is kept: "state entry attempts status attempt-ids…".
local function note(ev, sub, copy, state, entry, attempts, status, attempt)
  local evs, field, ids = key('evs', ev), sub .. '#' .. copy, {}
  local noted = call('HGET', evs, field)
  if not noted and call('EXISTS', evs) == 0 then return end
  for id in (noted or ''):gmatch('%d+%-%d+') do ids[#ids + 1] = id end
  table.remove(ids, 1)
  if attempt then ids[#ids + 1] = attempt end
  if #ids > ATTEMPTS_KEPT then table.remove(ids, 1) end
  call('HSET', evs, field, table.concat({ state, entry, attempts, status, unpack(ids) }, ' '))
end

-- Adds to a subscription's statistics of the hour. A field that is new may be the first: its hash is to end.
local function tally(sub, counts)
  local hour = math.floor(now / 3600000)
  local st, isNew = key('st', sub .. ':' .. hour), false
  for field, by in pairs(counts) do
    if call('HINCRBY', st, field, by) == by then isNew = true end
  end
  if isNew then call('PEXPIREAT', st, (hour + 1 + STATISTICS_HOURS) * 3600000) end
end

-- Forgets that a dead stream is there once it is empty.
local function tidyDead(sub)
  local oldest = call('XRANGE', key('dead', sub), '-', '+', 'COUNT', 1)[1]
  if oldest then call('ZADD', P .. ':deadidx', oldest[1]:match('^%d+'), sub) return end
  call('UNLINK', key('dead', sub))
  call('ZREM', P .. ':deadidx', sub)
  call('ZREM', key('tdead', call('HGET', key('rt', sub), 'tn') or ''), sub)
end

-- Forgets all that says who holds these entries.
local function forget(sub, ...)
  local held = {}
  for i, id in ipairs({ ... }) do held[2 * i - 1], held[2 * i] = id, id .. '#' end
  call('ZREM', key('inf', sub), ...)
  call('ZREM', key('rty', sub), ...)
  call('HDEL', key('tok', sub), unpack(held))
end

-- Closes the breaker: earlier failures hold back nothing more.
local function clearBreaker(sub, r)
  call('HSET', key('rt', sub), 'cf', 0, 'cfat', 0, 'hold', 0)
  r.cf, r.cfat, r.hold = 0, 0, 0
end

-- Clears all that a receiver's answers hold back: by the breaker, or as long as it asked for.
local function clearFaults(sub, r)
  clearBreaker(sub, r)
  call('HSET', key('rt', sub), 'ra', 0)
  r.ra = 0
end
