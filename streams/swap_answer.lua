#!lua flags=allow-oom
-- Puts a note about a request in the place of another, or takes it away. Also when memory is short: it ends the request.
-- KEYS[1] P:ans:<tenant>:<hash>   ARGV 2 note expected  3 note, "" for none  4 ms that it is kept
-- Returns 1, also where nothing is kept any more | 0 where it is another one; a call that is repeated finds its own
local kept = call('GET', KEYS[1]) or ''
if kept ~= '' and kept ~= ARGV[2] and kept ~= ARGV[3] then return 0 end
if ARGV[3] == '' then
  call('UNLINK', KEYS[1])
else
  call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
end
return 1
