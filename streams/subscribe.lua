#!lua
-- Creates a subscription, or changes it. Refused when memory is short, before any write.
-- ARGV 2 sub  3 tenant  4 record (JSON)  5 version expected, "" to create  6 requests at once  7 ms between sends or 0
--      8 sends in a burst  9 1 for FIFO  10 1 to let waiting deliveries go at once (the address changed)
--      11 status of a new one: a (active) | p (paused)  12 1 if it wants to know of dead letters
-- A repeat after a lost answer gets the answer of the first.
-- Returns the new version | "" where it is gone, was changed meanwhile, or is there already
local sub, tenant, expected = ARGV[2], ARGV[3], ARGV[5]
local rt = key('rt', sub)
local st, v = unpack(call('HMGET', rt, 'st', 'v'))
if st and st ~= 'd' and call('GET', key('sub', sub)) == ARGV[4] then return v end
if expected == '' and st or expected ~= '' and (not st or st == 'd' or v ~= expected) then return '' end

local version = call('XADD', P .. ':cfglog', 'MAXLEN', '~', 10000, '*', 's', sub)
if ARGV[12] == '1' then call('SADD', key('own', tenant), sub) end
call('SET', key('sub', sub), ARGV[4])
if expected == '' then
  call('XGROUP', 'CREATE', key('dlv', sub), 'senders', '0', 'MKSTREAM')
  call('HSET', rt, 'st', ARGV[11], 'since', now, 'tat', 0)
  call('ZADD', P .. ':subs', 0, sub)
  call('ZADD', key('tsubs', tenant), 0, sub)
end
call('HSET', rt, 'tn', tenant, 'cap', ARGV[6], 'T', ARGV[7], 'B', ARGV[8], 'fifo', ARGV[9], 'v', version)
local r = load(sub)
if ARGV[10] == '1' then clearFaults(sub, r) end
call('HSET', P .. ':cfgv', tenant, version)
if ARGV[12] ~= '1' then call('SREM', key('own', tenant), sub) end
plan(sub, r)
ring()
return version
