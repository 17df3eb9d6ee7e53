#!lua flags=allow-oom
-- Pauses a subscription or lets it go on. What is under way finishes; a paused one keeps collecting.
-- ARGV 2 sub  3 status: a (active) | p (paused)
-- Returns 1, or 0 where there is none
local sub, status = ARGV[2], ARGV[3]
local r = load(sub)
if not r or r.st == 'd' then return 0 end
if r.st ~= status then
  local rt = key('rt', sub)
  local version = call('XADD', P .. ':cfglog', 'MAXLEN', '~', 10000, '*', 's', sub)
  call('HSET', P .. ':cfgv', call('HGET', rt, 'tn'), version)
  call('HSET', rt, 'st', status, 'since', now, 'why', '', 'v', version)
end
if status == 'a' then clearFaults(sub, r) end
plan(sub)
ring()
return 1
