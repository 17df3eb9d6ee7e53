-- Sending what was sent before: below references.lua.
local TRACKED_TARGETS, COPIES_AT_MOST = 1000, 1000

-- Puts an event of the log to a subscription once more, as the first copy that it has not had; returns which; or nil and
-- "lost" where the event is gone, "many" where it had all copies that it may have. Above TRACKED_TARGETS the first is not noted.
local function putAgain(sub, ev)
  local event = call('XRANGE', P .. ':events', ev, ev)[1]
  if not event and call('EXISTS', key('pay', ev)) == 0 then return nil, 'lost' end
  local evs = key('evs', ev)
  local copy = tonumber(call('HGET', evs, 'n') or 0) > TRACKED_TARGETS and 1 or 0
  while call('HEXISTS', evs, sub .. '#' .. copy) == 1 do copy = copy + 1 end
  if copy > COPIES_AT_MOST then return nil, 'many' end
  -- What is kept beside the log is owed to somebody already.
  if call('HINCRBY', P .. ':refs', ev, 1) == 1 and event then
    local f = fields(event)
    owe(ev, f.tn, #f.b)
  end
  local entry = call('XADD', key('dlv', sub), '*', 'e', ev, 'c', copy)
  call('HINCRBY', evs, 'n', 1)
  call('PERSIST', evs)
  note(ev, sub, copy, 'p', entry, 0, 0)
  return copy
end
