-- messages.lua: what the others are to hear of a step: copies of calls, tokens, and when to look again.
--
-- Comes after transition.lua, and before the entry point. Keys beside those of runs.lua:
--   queue:<service>   stream of entries of one to MESSAGES messages, a field m for each:
--                     <run id>:<call id>:<generation>; other fields, of a later version, are ignored
--   wake:<service>    list of at most one token: somebody who waits for work is to look

-- An entry costs as much as several messages in it.
local MESSAGES = 8

--== messages ======================================================================================

-- A later version says first that it is going to write what we cannot read. From then on we write
-- nothing at all, however long this worker has been here.
local function other_format()
  local found = redis.call('GET', prefix .. 'format')
  return found and found ~= format and found
end

local function problem_of(problem)
  return type(problem) == 'table' and problem.err or tostring(problem)
end

local function queue_key(service)
  return prefix .. 'queue:' .. service
end

local waking = {}  -- services in which somebody is to look

-- { run id, call id, generation, address } of each copy that somebody is to publish.
local function copies()
  local found = {}
  for _, service in ipairs(services) do
    local fresh = queued[service]
    for at = 1, fresh.size, 4 do
      found[#found + 1] = { fresh[at], fresh[at + 1], fresh[at + 2], fresh[at + 3] }
    end
  end
  return found
end

-- First of all writes, and with a command that is refused when memory is full.
local function write_messages()
  for _, service in ipairs(services) do
    local fresh = queued[service]
    local entry, size = { queue_key(service), '*' }, 2
    for at = fresh.taken + 1, fresh.size, 4 do
      entry[size + 1] = 'm'
      entry[size + 2] = fresh[at] .. ':' .. fresh[at + 1] .. ':' .. digits[fresh[at + 2]]
      size = size + 2
      if size == 2 + 2 * MESSAGES or at + 4 > fresh.size then
        redis.call('XADD', unpack(entry, 1, size))
        size = 2
        waking[service] = true
      end
    end
  end
end

local function wake()
  for service in pairs(waking) do
    local key = prefix .. 'wake:' .. service
    if redis.call('LLEN', key) == 0 then redis.call('LPUSH', key, '1') end
  end
end

local function next_due()
  local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
  local due = tonumber(first[2])
  -- Whoever waits for a later one must know of it.
  if not paired and awaited and due and awaited.due <= due then waking[awaited.service] = true end
  return due and math.max(due - now, 0) or -1
end
