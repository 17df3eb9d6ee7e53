#!lua flags=allow-oom
-- Says how many bytes of events a tenant may be owed: also when memory is short, which is when it is needed.
-- ARGV 2 tenant  3 bytes, 0 for no limit
if ARGV[3] == '0' then call('HDEL', P .. ':lim', ARGV[2]) else call('HSET', P .. ':lim', ARGV[2], ARGV[3]) end
return 1
