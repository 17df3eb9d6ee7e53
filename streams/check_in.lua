#!lua flags=allow-oom
-- Says that a worker is alive, and lists those that are: also when memory is short.
-- KEYS[1] the list of workers   ARGV 2 worker  3 ms within which one was seen that is alive  4 ms after which one is forgotten
-- Returns the workers alive
call('ZADD', KEYS[1], now, ARGV[2])
call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[4])
return call('ZRANGEBYSCORE', KEYS[1], now - ARGV[3], '+inf')
