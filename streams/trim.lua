#!lua flags=allow-oom
-- Trims the oldest events of the log. The body of one that is still owed to somebody is kept beside it: the log never waits
-- for a slow subscription. Stops at the first event that is not expanded.
-- ARGV 2 last id that may go  3 events, at most  4 bytes, at most
-- Returns {trimmed, kept beside}
local place = expandedUpTo()
local left, last, trimmed, spilled = tonumber(ARGV[4]), nil, 0, 0
for _, event in ipairs(call('XRANGE', log, '-', ARGV[2], 'COUNT', ARGV[3])) do
  local id = event[1]
  if left <= 0 or before(place, id) then break end
  if call('HEXISTS', P .. ':refs', id) == 1 then
    call('HSET', key('pay', id), unpack(event[2]))
    spilled = spilled + 1
  end
  for _, field in ipairs(event[2]) do left = left - #field end
  last, trimmed = id, trimmed + 1
end
if last then
  local ms, seq = last:match('(%d+)-(%d+)')
  call('XTRIM', log, 'MINID', '=', ms .. '-' .. string.format('%.0f', tonumber(seq) + 1))
end
return { trimmed, spilled }
