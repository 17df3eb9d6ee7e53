#!lua flags=allow-oom
-- Says that workers are alive, and lists those that are: also when memory is short.
-- KEYS[1] the list of workers   ARGV 2 ms within which one was seen that is alive  3 ms after which one is forgotten  4… workers
-- Returns the workers alive
for i = 4, #ARGV do call('ZADD', KEYS[1], now, ARGV[i]) end
call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[3])
return call('ZRANGEBYSCORE', KEYS[1], now - ARGV[2], '+inf')
