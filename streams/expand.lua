#!lua
-- Puts events on the delivery streams of those who want them, in log order and each once, and hands out what is due then.
-- Refused when memory is short.
-- ARGV 2 backlog limit  3 dead letter limit  4 events (MessagePack, each an array:
--        the event before it, ev, cursor expected, next cursor or "" with the last chunk, 1 to note each target, type, nonce,
--        tenant, bytes of its body, subscriptions sorted)
--      5… as 2 to 5 of lease.lua; with 0 entries nothing is handed out
-- The cursor is the last subscription done: those added or removed meanwhile shift nothing.
-- Returns {events done, refusal or "", its argument, deliveries beyond a backlog, what `handOutDue` returns or ""}: ORDER ev (what
-- follows that comes first) | CURSOR c (go on after c)
-- All references are counted first (a call cut short may leak them, never free a body too early), then all entries are added,
-- and each subscription is planned once; what says that an event is done comes last.
local maxBacklog, maxDead = tonumber(ARGV[2]), tonumber(ARGV[3])
local exp = P .. ':exp'
local targets, owed, overflowed = {}, {}, 0
-- What is to be done, and how many entries it adds that name each event; events that it ends, in order; up to where each is
-- expanded then, and whether no status of it is to age now.
local taken, named, finished, cursors, isAgeless = {}, {}, {}, {}, {}

-- A subscription, and how many entries it has; false where it is gone.
local function target(sub)
  if targets[sub] == nil then
    local r = load(sub)
    local t = r and r.st ~= 'd' and { r = r, entries = r.counts[1] + r.counts[2] + r.counts[3], added = 0 }
    -- A count that has drifted makes no dead letters.
    if t and t.entries >= maxBacklog then t.entries = call('XLEN', key('dlv', sub)) end
    targets[sub] = t or false
  end
  return targets[sub]
end

-- Counts what is stored for each tenant, once for all of its events.
local function countOwed()
  for tenant, bytes in pairs(owed) do call('HINCRBY', P .. ':owed', tenant, bytes) end
  owed = {}
end

-- A dead letter may push out another, whose event may then be owed to nobody.
local function overflow(ev, type, nonce, sub)
  countOwed()
  overflowed, targets[sub].hasOverflowed = overflowed + 1, true
  bury(sub, { ev = ev, copy = 0, type = type, nonce = nonce, attempts = 0, why = 'overflow', status = 0,
    error = 'the webhook had as many deliveries waiting as it may have', entry = ev }, maxDead)
end

-- Returns whether it leaves no status that is to age now: a delivery is owed by this, or it has none, as nobody wants it.
local function expand(item, isFirst)
  local _, ev, cursor, following, track, type, nonce, tenant, bytes, subs = unpack(item, 1, 10)
  if #subs == 0 then return cursor == '' end
  local notes, full, there = {}, {}, 0
  for _, sub in ipairs(subs) do
    local t = target(sub)
    if t then there = there + 1 end
    if t and t.entries < maxBacklog then
      local entry = call('XADD', key('dlv', sub), '*', 'e', ev)
      t.entries, t.added, t.first = t.entries + 1, t.added + 1, t.first or entry
      if track == 1 then notes[#notes + 1], notes[#notes + 2] = sub .. '#0', 'p ' .. entry end
    elseif t then
      full[#full + 1] = sub
    end
  end
  -- An event whose targets are not all noted keeps a count above those that are.
  local evs, counted = key('evs', ev), track == 1 and there or #subs
  local isWhole = cursor == '' and following == ''
  if isWhole then notes[#notes + 1], notes[#notes + 2] = 'n', int(counted) else call('HINCRBY', evs, 'n', counted) end
  if isFirst[ev] and there > 0 then
    notes[#notes + 1], notes[#notes + 2] = 'o', bytes .. ' ' .. tenant
    owed[tenant], isFirst[ev] = (owed[tenant] or 0) + bytes, false
  end
  if #notes > 0 then call('HSET', evs, unpack(notes)) end
  for _, sub in ipairs(full) do overflow(ev, type, nonce, sub) end
  return there > #full
end

local items, place, count = cmsgpack.unpack(ARGV[4]), expandedUpTo()
local isCut = call('EXISTS', exp) == 1

-- The refusal of an item, and its argument; nil where it is to be done, or is done already.
local function take(item)
  local previous, ev, cursor, following = unpack(item, 1, 4)
  if not before(place, ev) then return end
  if previous ~= place then return 'ORDER', place end
  local at = cursors[ev] or isCut and call('HGET', exp, ev) or ''
  if at ~= cursor then return 'CURSOR', at end
  taken[#taken + 1], cursors[ev] = item, following
  for _, sub in ipairs(item[10]) do
    if target(sub) then named[ev] = (named[ev] or 0) + 1 end
  end
  if following == '' then place, finished[#finished + 1] = ev, ev end
end

local done, refusal, argument, leased = 0, nil, nil, ''
for _, item in ipairs(items) do
  refusal, argument = take(item)
  if refusal then break end
  done = done + 1
end
local isFirst = refer(named)
for _, item in ipairs(taken) do isAgeless[item[2]] = expand(item, isFirst) end
countOwed()
for sub, t in pairs(targets) do
  if t and t.hasOverflowed then arrange(sub, t.r) elseif t and t.added > 0 then collect(sub, t.r, t.added, t.first) end
end
for ev, cursor in pairs(cursors) do if cursor ~= '' then call('HSET', exp, ev, cursor) end end
if #finished > 0 then
  if isCut then call('HDEL', exp, unpack(finished)) end
  for _, ev in ipairs(finished) do
    if not isAgeless[ev] and call('HEXISTS', P .. ':refs', ev) == 0 then expire(ev) end
  end
  setExpanded(place, count + #finished)
end
if ARGV[6] ~= '0' then
  -- These events are done, whatever becomes of this: senders will find what is due.
  local isDone, answer = pcall(handOutDue, ARGV[5], ARGV[6], ARGV[7], ARGV[8], maxDead, targets)
  leased = isDone and answer or ''
end
mirror()
ring()
return { done, refusal or '', argument or '', overflowed, leased }
