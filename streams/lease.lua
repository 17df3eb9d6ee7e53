#!lua flags=allow-oom
-- Hands out deliveries that are due.
-- ARGV 2 subscriptions looked at, at most  3 entries, at most  4 ms of a lease  5 random part of the token  6 dead letter limit
-- Returns what `handOutDue` returns
local leased, text, damaged = handOutDue(ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], {})
-- What is damaged of one is no reason for the others to wait.
if damaged then call('ZADD', KEYS[1], now + 30000, damaged) end
mirror()
if not leased then return redis.error_reply(text) end
rest()
return leased
