-- What a subscription has, and when anything can be done for it: below common.lua.
local COUNTED = { 'fresh', 'waiting', 'leased', 'dead' }
-- What `mirror` has still to write: differences of the counts in P:cnt, and the fields in P:rt of each subscription.
local differences, mirrored
atBegin(function() differences, mirrored = { 0, 0, 0, 0 }, {} end)

-- Has a field of a subscription's runtime state written by `mirror`.
local function set(sub, field, value)
  local changed = mirrored[sub] or {}
  changed[field], mirrored[sub] = value, changed
end

-- Counts a subscription's deliveries (r.counts) anew. Only differences travel: `arrange` mends what has drifted.
local function count(sub, r, counts)
  for i, counted in ipairs(counts) do
    if counted ~= r.counts[i] then
      differences[i] = differences[i] + counted - r.counts[i]
      set(sub, 'n' .. (i - 1), counted)
    end
  end
  r.counts = counts
end

-- Notes when the oldest entry that is not done was queued, "" where there is none. Where it is not given it is looked for.
local function countOldest(sub, r, old)
  if not old then
    local head = call('XRANGE', key('dlv', sub), '-', '+', 'COUNT', 1)[1]
    old = head and head[1]:match('^%d+') or ''
  end
  if old == r.old then return end
  if old ~= '' then call('ZADD', P .. ':old', old, sub) else call('ZREM', P .. ':old', sub) end
  set(sub, 'old', old)
  r.old = old
end

-- Writes what was counted, once a call and for all subscriptions of it together. In a call that breaks off before, P:cnt and
-- P:rt still agree.
local function mirror()
  for i, name in ipairs(COUNTED) do
    if differences[i] ~= 0 then call('HINCRBY', P .. ':cnt', name, differences[i]) end
  end
  for sub, changed in pairs(mirrored) do
    local written = {}
    for field, value in pairs(changed) do written[#written + 1], written[#written + 2] = field, value end
    call('HSET', key('rt', sub), unpack(written))
  end
  differences, mirrored = { 0, 0, 0, 0 }, {}
end

-- When anything can be done for a subscription next, by its counts; math.huge when nothing can.
local function nextDue(sub, r)
  local inf, rty = key('inf', sub), key('rty', sub)
  local fresh, waiting, leased = unpack(r.counts, 1, 3)
  local live, due = 0, math.huge
  if leased > 0 then
    local first = tonumber(call('ZRANGE', inf, 0, 0, 'WITHSCORES')[2])
    if first and first > now then
      live, due = leased, first
    elseif first then
      live = call('ZCOUNT', inf, '(' .. now, '+inf')
      due = tonumber(call('ZRANGEBYSCORE', inf, '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2] or due)
    end
  end
  if live >= cap(r) then return due end
  local open = gate(r)
  if r.fifo then
    local head = pendingHead(sub)
    local retry = head and call('ZSCORE', rty, head[1])
    return math.min(due, retry and math.max(tonumber(retry), open) or open)
  end
  if leased > live or fresh > 0 then due = math.min(due, open) end
  if waiting > 0 then due = math.min(due, math.max(tonumber(call('ZRANGE', rty, 0, 0, 'WITHSCORES')[2] or 0), open)) end
  return due
end

local somethingIsDue
atBegin(function() somethingIsDue = false end)

-- Puts a subscription where P:due must have it, by its counts: at the time when anything can be done for it, or nowhere. One
-- that is due already keeps its place, however often it is planned; a lease, which says how early it may have its next turn
-- (or false), sends it to the end of the line.
local function place(sub, r, earliest)
  if r.st ~= 'a' or r.counts[1] + r.counts[2] + r.counts[3] == 0 then call('ZREM', KEYS[1], sub) return end
  local due = nextDue(sub, r)
  if due == math.huge then due = now end
  if earliest then due = math.max(due, earliest) end
  if due <= now then somethingIsDue = true end
  if due <= now and earliest == nil then call('ZADD', KEYS[1], 'LT', due, sub) else call('ZADD', KEYS[1], due, sub) end
end

-- Counts what a subscription has, and places it; `mirror` is to follow.
local function arrange(sub, r, earliest)
  local entries, leased, waiting = call('XLEN', key('dlv', sub)), call('ZCARD', key('inf', sub)), call('ZCARD', key('rty', sub))
  count(sub, r, { entries - leased - waiting, waiting, leased, call('XLEN', key('dead', sub)) })
  countOldest(sub, r, entries == 0 and '')
  place(sub, r, earliest)
end

-- The same for the one subscription of a call.
local function plan(sub, r)
  r = r or load(sub)
  if not r then call('ZREM', KEYS[1], sub) return end
  arrange(sub, r)
  mirror()
end

-- Counts and places a subscription that got new entries, the first of them `entry`. Nothing changes for one that has as much
-- under way as it may, or its order to keep to. Where the counts cannot be right all is counted.
local function collect(sub, r, added, entry)
  local fresh, waiting, leased, dead = unpack(r.counts)
  if fresh < 0 then return arrange(sub, r) end
  count(sub, r, { fresh + added, waiting, leased, dead })
  if r.old == '' then countOldest(sub, r, entry:match('^%d+')) end
  if r.st ~= 'a' or leased >= cap(r) or r.fifo and fresh + waiting + leased > 0 then return end
  local due = gate(r)
  if due <= now then somethingIsDue = true end
  call('ZADD', KEYS[1], 'LT', due, sub)
end

-- Counts and places a subscription of which new deliveries, and some that waited, were leased: at the end of the line. Where
-- something else has changed, all is counted.
local function handOut(sub, r, new, retried, isKnown)
  local fresh, waiting = r.counts[1] - new, r.counts[2] - retried
  if not isKnown or fresh < 0 or waiting < 0 then return arrange(sub, r, false) end
  count(sub, r, { fresh, waiting, r.counts[3] + new + retried, r.counts[4] })
  place(sub, r, false)
end

-- Counts and places a subscription of which nothing but this became: leased deliveries are done. Where the counts cannot be
-- right all is counted.
local function takeAway(sub, r, ended)
  local fresh, waiting, leased, dead = unpack(r.counts)
  leased = leased - #ended
  local isEmpty = fresh + waiting + leased == 0
  if leased < 0 or isEmpty and call('XLEN', key('dlv', sub)) > 0 then return arrange(sub, r) end
  count(sub, r, { fresh, waiting, leased, dead })
  countOldest(sub, r, isEmpty and '')
  place(sub, r)
end

-- Wakes senders that sleep, when something fell due. A hint only: it may be lost.
local function ring()
  if somethingIsDue and call('DEL', P .. ':asleep') == 1 then call('SPUBLISH', P .. ':bell', P) end
end

-- When something is due next, or "".
local function firstDue()
  local due = call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
  somethingIsDue = due and tonumber(due) <= now
  return due or ''
end

-- With nothing due now senders go to sleep: from here on they want to be woken.
local function rest()
  if not somethingIsDue then call('SET', P .. ':asleep', 1, 'PX', 7000) end
end
