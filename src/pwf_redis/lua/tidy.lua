-- tidy.lua: take consumers off a group that have gone without saying so. Only those that hold
-- nothing: what a consumer holds is lost with it.
--
-- KEYS[1]   pwf:{namespace:partition}:due; only its prefix matters, and the slot
-- ARGV[1]   group
-- ARGV[2]   service
-- ARGV[3]   milliseconds without a sign of life
--
-- Reply:    how many were taken off

local stream = string.sub(KEYS[1], 1, -4) .. 'stream:' .. ARGV[2]
local consumers = redis.pcall('XINFO', 'CONSUMERS', stream, ARGV[1])
if consumers.err then return 0 end
local count = 0
for _, consumer in ipairs(consumers) do
  local facts = {}
  for number = 1, #consumer, 2 do facts[consumer[number]] = consumer[number + 1] end
  if facts.pending == 0 and facts.idle > tonumber(ARGV[3]) then
    redis.call('XGROUP', 'DELCONSUMER', stream, ARGV[1], facts.name)
    count = count + 1
  end
end
return count
