#!lua
-- Adds a type of events to a tenant's own. Refused when memory is short, before any write.
-- ARGV 2 tenant  3 type  4 record (JSON)  5 types a tenant may have  6 bytes that their records may have
-- A repeat after a lost answer gets the answer of the first.
-- Returns 'added' | 'there', with another record | 'full'
local types, name, record = key('types', ARGV[2]), ARGV[3], ARGV[4]
local kept = call('HGET', types, name)
if kept then return kept == record and 'added' or 'there' end
local names, bytes = call('HKEYS', types), #record
for _, other in ipairs(names) do bytes = bytes + call('HSTRLEN', types, other) end
if #names >= tonumber(ARGV[5]) or bytes > tonumber(ARGV[6]) then return 'full' end
call('HSET', types, name, record)
return 'added'
