-- References: how many entries of P:dlv:* and P:dead:* name an event (P:refs). Below common.lua.

-- Counts entries that a call is to add, `added` by event; returns of each event whether nothing else names it.
local function refer(added)
  local evs, counts, isFirst = {}, {}, {}
  for ev in pairs(added) do evs[#evs + 1] = ev end
  if #evs == 0 then return isFirst end
  for i, count in ipairs(call('HMGET', P .. ':refs', unpack(evs))) do
    local ev = evs[i]
    counts[2 * i - 1], counts[2 * i], isFirst[ev] = ev, int(added[ev] + (count or 0)), not count
  end
  call('HSET', P .. ':refs', unpack(counts))
  return isFirst
end

-- Counts an event that somebody is owed among what its tenant stores. Its status keeps how much that is, also when nobody is
-- owed it any more: that is said by P:refs.
local function owe(ev, tenant, bytes)
  call('HSET', key('evs', ev), 'o', bytes .. ' ' .. tenant)
  call('HINCRBY', P .. ':owed', tenant, bytes)
end

-- One entry less names each of these events, for each time that it is listed. With its last one nobody is owed it any more:
-- its tenant has so much less stored, its spilled body goes, and its status begins to age. `owed` is how much that is, as
-- `owe` keeps it, where it is known.
local function unref(events, owed)
  local times, named = {}, {}
  for _, ev in ipairs(events) do
    if not times[ev] then named[#named + 1] = ev end
    times[ev] = (times[ev] or 0) + 1
  end
  if #named == 0 then return end
  local left, gone, bodies, freed = {}, {}, {}, {}
  for i, refs in ipairs(call('HMGET', P .. ':refs', unpack(named))) do
    local ev = named[i]
    if tonumber(refs or 0) > times[ev] then
      left[#left + 1], left[#left + 2] = ev, int(refs - times[ev])
    else
      -- One that nothing named is not freed twice.
      local bytes, tenant = (refs and (owed and owed[ev] or call('HGET', key('evs', ev), 'o')) or ''):match('^(%d+) (.+)$')
      if tenant then freed[tenant] = (freed[tenant] or 0) + bytes end
      gone[#gone + 1], bodies[#bodies + 1] = ev, key('pay', ev)
    end
  end
  if #left > 0 then call('HSET', P .. ':refs', unpack(left)) end
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
