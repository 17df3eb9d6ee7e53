-- How far the log is expanded, below common.lua: P:meta says so, and the group `dispatchers` shows
-- it to whoever asks for its lag. Nothing is pending in the group: dispatchers read by range, and read again what was not expanded.
local log
atBegin(function() log = P .. ':events' end)

-- The last event that is expanded, and how many are.
local function expandedUpTo()
  local f = call('HMGET', P .. ':meta', 'hwm', 'expanded')
  return f[1] or '0-0', tonumber(f[2] or 0)
end

local function setExpanded(ev, count)
  call('HSET', P .. ':meta', 'hwm', ev, 'expanded', int(count))
  local moved = redis.pcall('XGROUP', 'SETID', log, 'dispatchers', ev, 'ENTRIESREAD', int(count))
  if moved.err then redis.pcall('XGROUP', 'CREATE', log, 'dispatchers', ev, 'MKSTREAM', 'ENTRIESREAD', int(count)) end
end
