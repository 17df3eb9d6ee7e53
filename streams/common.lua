-- What every script shares. It stands above them all in one library, which Redis runs once, when it is loaded: what belongs to
-- one call is set by `begin`.
-- KEYS[1] = P:due (routes the call to the shard's server)   ARGV[1] = P, the shard's key prefix
-- Within a script additions come first and removals last: one that is cut short can only duplicate, never lose.
local KEYS, ARGV, P, call, clock, now
local resets = {}

-- Has something done when a call begins: the state of a call is not left from the one before, even one that broke off.
local function atBegin(reset) resets[#resets + 1] = reset end

local function begin(keys, arguments)
  KEYS, ARGV, P, call = keys, arguments, arguments[1], redis.call
  clock = call('TIME')
  now = clock[1] * 1000 + math.floor(clock[2] / 1000)
  for _, reset in ipairs(resets) do reset() end
end

local HOLD_MAX, RETRY_AFTER_MAX = 300000, 3600000
local ATTEMPTS_KEPT = 20
local STATISTICS_HOURS = 192

-- A whole number as text. Numbers that commands are given take Lua ten times as long to write: those of each delivery go as text.
local function int(number) return string.format('%d', number) end

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
-- pending. A missing group is mended by leasing.lua; it must not stop another script half-way.
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
    'n0', 'n1', 'n2', 'n3', 'old', 'down', 'ok')
  if not f[1] then return nil end
  local interval, burst = tonumber(f[3]), tonumber(f[4])
  return {
    st = f[1], cap = tonumber(f[2]), interval = interval, burst = burst,
    tat = math.min(tonumber(f[5] or 0), now + burst * interval),
    fifo = f[6] == '1', cf = tonumber(f[7] or 0), cfat = tonumber(f[8] or 0), cfl = tonumber(f[9] or 0),
    hold = math.min(tonumber(f[10] or 0), now + HOLD_MAX), ra = math.min(tonumber(f[11] or 0), now + RETRY_AFTER_MAX),
    v = f[12], counts = { tonumber(f[13] or 0), tonumber(f[14] or 0), tonumber(f[15] or 0), tonumber(f[16] or 0) },
    old = f[17] or '', down = tonumber(f[18] or 0), ok = tonumber(f[19] or 0),
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

-- Lets the status of an event that nothing waits for age, for as long as attempts are kept.
local statusMs
atBegin(function() statusMs = nil end)

local function expire(ev)
  statusMs = statusMs or call('HGET', P .. ':meta', 'keep') or '604800000'
  call('PEXPIRE', key('evs', ev), statusMs)
end

-- Notes where a delivery stands, if its event's status is kept: "state entry attempts status attempt-ids…". Returns how much
-- the event's tenant has stored with it, as `owe` keeps it.
local function note(ev, sub, copy, state, entry, attempts, status, attempt)
  local evs, field = key('evs', ev), sub .. '#' .. copy
  local noted, owed = unpack(call('HMGET', evs, field, 'o'), 1, 2)
  if not noted and not owed and call('EXISTS', evs) == 0 then return nil end
  local text = { state, entry, int(attempts), int(status) }
  for id in (noted and noted:match('^%a %S+ %S+ %S+(.*)$') or ''):gmatch('%S+') do text[#text + 1] = id end
  if attempt then text[#text + 1] = attempt end
  if #text > 4 + ATTEMPTS_KEPT then table.remove(text, 5) end
  call('HSET', evs, field, table.concat(text, ' '))
  return owed
end

-- Adds to a subscription's statistics of the hour. Where none of these is there the hash may be new: it is to end.
local function tally(sub, counts)
  local hour = math.floor(now / 3600000)
  local st, names, sums, isNew = key('st', sub .. ':' .. hour), {}, {}, true
  for name in pairs(counts) do names[#names + 1] = name end
  if #names == 0 then return end
  for i, before in ipairs(call('HMGET', st, unpack(names))) do
    sums[2 * i - 1], sums[2 * i], isNew = names[i], int(counts[names[i]] + (before or 0)), isNew and not before
  end
  call('HSET', st, unpack(sums))
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

-- Ends the leases of entries.
local function letGo(sub, ...)
  local held = {}
  for i, id in ipairs({ ... }) do held[2 * i - 1], held[2 * i] = id, id .. '#' end
  call('ZREM', key('inf', sub), ...)
  call('HDEL', key('tok', sub), unpack(held))
end

-- Forgets all that says who holds these entries, or when they are tried again.
local function forget(sub, ...)
  call('ZREM', key('rty', sub), ...)
  letGo(sub, ...)
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
