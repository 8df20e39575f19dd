-- waiting.lua: does a stream of a broker have messages that no consumer was given?
--
-- KEYS[1]   pwf:{namespace:partition}:due; only its prefix matters, and the slot
-- ARGV[1]   group
-- ARGV      then services
--
-- Reply:    1 or 0

local prefix = string.sub(KEYS[1], 1, -4)
for number = 2, #ARGV do
  local stream = prefix .. 'stream:' .. ARGV[number]
  local groups, from = redis.pcall('XINFO', 'GROUPS', stream), '-'
  if not groups.err then  -- else there is no such stream
    for _, group in ipairs(groups) do
      local facts = {}
      for at = 1, #group, 2 do facts[group[at]] = group[at + 1] end
      if facts.name == ARGV[1] then from = '(' .. facts['last-delivered-id'] end
    end
    if #redis.call('XRANGE', stream, from, '+', 'COUNT', 1) > 0 then return 1 end
  end
end
return 0
