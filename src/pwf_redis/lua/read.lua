-- read.lua: how runs stand, each as of one moment.
--
-- KEYS[1]   pwf:{namespace:partition}:due; see request.lua
-- ARGV[1]   at how many fields a run is too big to be listed whole
-- ARGV[n]   run ids
--
-- Reply:    one item per run: false if there is none, or
--           { header, reason, result, calls, joins, events }
--             header, reason, result   as stored; reason and result may be nil
--             calls    call id, record and reason (or nil) of each open call, one after the other
--             joins    call id and record of each join
--             events   names
--           Of a run that is too big, some calls, joins and events are missing; with it comes a
--           seventh item, 1.

local prefix = string.sub(KEYS[1], 1, -4)
local most = tonumber(ARGV[1])
local CHUNK = 1000

local function fields_of(key)
  if redis.call('HLEN', key) <= most then return redis.call('HKEYS', key), false end
  local found = redis.call('HSCAN', key, 0, 'COUNT', most)[2]
  local fields = {}
  for number = 1, #found, 2 do fields[#fields + 1] = found[number] end
  return fields, true
end

local function values_of(key, fields)
  local values = {}
  for first = 1, #fields, CHUNK do
    local final = math.min(first + CHUNK - 1, #fields)
    for number, value in ipairs(redis.call('HMGET', key, unpack(fields, first, final))) do
      values[first + number - 1] = value
    end
  end
  return values
end

local views = {}
for number = 2, #ARGV do
  local key = prefix .. 'run:' .. ARGV[number]
  local top = redis.call('HMGET', key, 'h', 'y', 'r::0')
  if top[1] then
    local fields, cut = fields_of(key)
    local wanted, events = {}, {}
    for _, field in ipairs(fields) do
      local kind, id = string.sub(field, 1, 2), string.sub(field, 3)
      if kind == 'e:' then
        events[#events + 1] = id
      elseif kind == 'c:' then
        wanted[#wanted + 1] = field
        wanted[#wanted + 1] = 'y:' .. id
      elseif kind == 'j:' then
        wanted[#wanted + 1] = field
      end
    end
    local values, calls, joins = values_of(key, wanted), {}, {}
    for position, field in ipairs(wanted) do
      local kind, id = string.sub(field, 1, 2), string.sub(field, 3)
      if kind == 'c:' then
        calls[#calls + 1] = id
        calls[#calls + 1] = values[position]
        calls[#calls + 1] = values[position + 1]
      elseif kind == 'j:' then
        joins[#joins + 1] = id
        joins[#joins + 1] = values[position]
      end
    end
    views[number - 1] = { top[1], top[2], top[3], calls, joins, events, cut and 1 or 0 }
  else
    views[number - 1] = false
  end
end
return views
