#!lua flags=allow-oom
-- Checks one subscription's keys against each other, a page a call, and mends what differs. A second audit changes nothing.
-- ARGV 2 sub  3 cursor, "" at first  4 furthest ms of a retry from now  5 ms of a lease  6 entries a page
-- Returns {next cursor or "" at the end, mended}
-- The cursor is "<phase>:<place>": pending ids (p), entries (e), leases (i), retries (r), attempts (a).
local sub, cursor, horizon, leaseMs, size = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local dlv, inf, rty = key('dlv', sub), key('inf', sub), key('rty', sub)
local mended = 0
local function mend() mended = mended + 1 end
local r = load(sub)
if not r then return { '', 0 } end
if cursor == '' then
  local groups = redis.pcall('XINFO', 'GROUPS', dlv)
  if groups.err or #groups == 0 then
    call('XGROUP', 'CREATE', dlv, 'senders', '0', 'MKSTREAM')
    mend()
  end
  cursor = 'p:-'
end
local phase, place = cursor:match('^(%a):(.*)$')

local phases = {}

-- A pending entry that is neither leased nor waiting goes once more, whoever may have it.
local function requeue(id)
  if call('ZSCORE', inf, id) or call('ZSCORE', rty, id) then return false end
  call('ZADD', rty, now, id)
  call('HDEL', key('tok', sub), id)
  return true
end

-- Every pending id has its entry, and a lease or a retry.
function phases.p()
  local page = call('XPENDING', dlv, 'senders', place == '-' and '-' or '(' .. place, '+', size)
  for _, pending in ipairs(page) do
    local id = pending[1]
    if #call('XRANGE', dlv, id, id) == 0 then
      call('XACK', dlv, 'senders', id)
      forget(sub, id)
      mend()
    elseif requeue(id) then
      mend()
    end
  end
  return #page == size and 'p:' .. page[#page][1] or 'e:-'
end

-- Every entry that the group has handed out is pending.
function phases.e()
  local delivered = '0-0'
  for _, group in ipairs(call('XINFO', 'GROUPS', dlv)) do
    local g = fields({ '', group })
    if g.name == 'senders' then delivered = g['last-delivered-id'] end
  end
  if delivered == '0-0' then return 'i:0' end
  local page = call('XRANGE', dlv, place == '-' and '-' or '(' .. place, delivered, 'COUNT', size)
  for _, entry in ipairs(page) do
    if not pendingEntry(sub, entry[1]) then
      call('XCLAIM', dlv, 'senders', 's', 0, entry[1], 'FORCE', 'RETRYCOUNT', 0, 'JUSTID')
      requeue(entry[1])
      mend()
    end
  end
  return #page == size and 'e:' .. page[#page][1] or 'i:0'
end

-- Every lease and retry is of a pending id, and no further ahead than it can be.
local function scan(zset, furthest, moved)
  local reply = call('ZSCAN', zset, place, 'COUNT', size)
  for i = 1, #reply[2], 2 do
    local id, at = reply[2][i], tonumber(reply[2][i + 1])
    if not pendingEntry(sub, id) then
      forget(sub, id)
      mend()
    elseif zset == rty and call('ZSCORE', inf, id) then
      call('ZREM', rty, id)
      mend()
    elseif at > furthest then
      call('ZADD', zset, moved, id)
      mend()
    end
  end
  return reply[1]
end

function phases.i()
  local following = scan(inf, now + leaseMs, now + leaseMs)
  return following ~= '0' and 'i:' .. following or 'r:0'
end

function phases.r()
  local following = scan(rty, now + horizon, now)
  return following ~= '0' and 'r:' .. following or 'a:0'
end

-- The list of attempts ends where the attempt log begins.
function phases.a()
  local first = call('XRANGE', P .. ':attempts', '-', '+', 'COUNT', 1)[1]
  local oldest = first and tonumber(first[1]:match('^%d+')) or now
  local att, gone = key('att', sub), 0
  local page = call('LRANGE', att, 0, size - 1)
  for _, member in ipairs(page) do
    if struct.unpack('>I6', member) >= oldest then break end
    gone = gone + 1
  end
  if gone > 0 then call('LPOP', att, gone) end
  return gone == size and 'a:0' or ''
end

local following = phases[phase]()
if following == '' then plan(sub) end
return { following, mended }
