-- advance.lua: let a partition say that it has the next layout. One atomic step; safe to repeat.
--
-- KEYS[1]   see request.lua; its prefix names the key `format`
-- ARGV[1]   what that is to say
-- ARGV[n]   what it may have said before; anything else stays, for it is later or somebody else's

local key = string.sub(KEYS[1], 1, -4) .. 'format'
local found = redis.call('GET', key)
local may = not found
for number = 2, #ARGV do may = may or found == ARGV[number] end
if may then redis.call('SET', key, ARGV[1]) end
