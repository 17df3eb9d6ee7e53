#!lua flags=allow-oom
-- Deletes a subscription: nothing is sent or collected any more. purge.lua then clears what it leaves.
-- ARGV 2 sub  3 tombstone (JSON without address and secrets)
-- Returns 1, or 0 where there is none
local sub = ARGV[2]
local rt = key('rt', sub)
local st, tenant = unpack(call('HMGET', rt, 'st', 'tn'))
if not st or st == 'd' then return 0 end
local version = call('XADD', P .. ':cfglog', 'MAXLEN', '~', 10000, '*', 's', sub)
call('ZADD', P .. ':subs', now, sub)
call('HSET', rt, 'st', 'd', 'since', now, 'v', version)
call('HSET', P .. ':cfgv', tenant, version)
call('SET', key('sub', sub), ARGV[3])
call('ZREM', key('tsubs', tenant), sub)
call('SREM', key('own', tenant), sub)
call('ZREM', KEYS[1], sub)
return 1
