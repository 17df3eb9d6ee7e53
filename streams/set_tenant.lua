#!lua flags=allow-oom
-- Brings a tenant into being, or changes it: also when memory is short, since its limits keep it from getting worse.
-- KEYS[1] the tenants   ARGV 2 tenant  3 record (JSON)  4 record expected, "" for none
-- Returns 1 | 0 where the record is another one
if (call('HGET', KEYS[1], ARGV[2]) or '') ~= ARGV[4] then return 0 end
call('HSET', KEYS[1], ARGV[2], ARGV[3])
return 1
