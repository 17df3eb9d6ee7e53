#!lua flags=allow-oom
-- Sets a field of P:meta: the janitor's gate, how long statuses are kept, or who moves the front door. Also when memory is short.
-- ARGV 2 field  3 value
call('HSET', P .. ':meta', ARGV[2], ARGV[3])
return 1
