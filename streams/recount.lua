#!lua flags=allow-oom
-- Checks the references of events that are older than an hour against what their status says, and mends the count.
-- ARGV 2 cursor, "0" at first  3 events a page
-- Returns {next cursor, mended}; a cursor has two parts, as a small hash comes whole whatever the page: where Redis goes on, and
-- how much of the page is done.
local LOOKED_AT_MOST = 2000
local refs, mended, looked, gone = P .. ':refs', 0, 0, 0
local cursor, done = ARGV[2]:match('^(%d+):?(%d*)$')
local reply = call('HSCAN', refs, cursor, 'COUNT', ARGV[3])

-- Entries that are there, of those the status calls pending or dead; nil where it does not know every delivery.
local function entries(ev)
  local evs, found = key('evs', ev), 0
  local targets = tonumber(call('HGET', evs, 'n'))
  if not targets or targets ~= call('HLEN', evs) - 1 - call('HEXISTS', evs, 'o') then return nil end
  local status = call('HGETALL', evs)
  looked = looked + #status / 2
  for i = 1, #status, 2 do
    local state, id = status[i + 1]:match('^(%a) (%S+)')
    local stream = state == 'p' and 'dlv' or state == 'd' and 'dead'
    if stream and #call('XRANGE', key(stream, status[i]:match('^(.*)#')), id, id) > 0 then found = found + 1 end
  end
  return found
end

for i = 1 + (tonumber(done) or 0), #reply[2], 2 do
  if looked > LOOKED_AT_MOST then return { cursor .. ':' .. int(i - 1 - 2 * gone), mended } end
  local ev, counted = reply[2][i], tonumber(reply[2][i + 1])
  if now - tonumber(ev:match('^%d+')) > 3600000 and call('HEXISTS', P .. ':exp', ev) == 0 then
    local found = entries(ev)
    if found and found ~= counted then
      call('HSET', refs, ev, found + 1)
      unref({ ev })
      mended = mended + 1
      if found == 0 then gone = gone + 1 end
    end
  end
end
return { reply[1], mended }
