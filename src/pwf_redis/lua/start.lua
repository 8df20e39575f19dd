-- start.lua: begin runs. One atomic step, safe to repeat.
--
-- Clients start runs one by one, and then most of a script's time goes by before its first command: so this
-- one has no more in it than it needs.
--
-- KEYS[1]   see request.lua
-- ARGV[1]   see request.lua; each command is
--             START, run id, call id, address, body, delay_ms, due_ms, key, fingerprint
-- ARGV[n]   payloads
--
-- Reply:    that of exchange.lua; for each command { run id, created, conflict }, and
--             next_due_ms    -1, too, where nobody needs it

--== starts =======================================================================================

local new_header = cmsgpack.pack(FORMAT, RUNNING, 1, 1, 0, 0, 0, 0, 0, 0, NONE)
local begun  -- { command, call } of each run that begins; by its id, and in order
local named  -- user's key -> value of key:<key>

local function is_known(run_id)
  if begun[run_id] then return true end
  local found = redis.call('HGET', prefix .. 'run:' .. run_id, 'h')
  if found then judge_format((cmsgpack.unpack(found))) end
  return found
end

local function due_of(delay_ms, at_ms)
  if delay_ms > 0 or at_ms > 0 then set_clock() end
  if at_ms > now then return at_ms end
  return at_ms == 0 and delay_ms > 0 and now + delay_ms or 0
end

local function begin(command)
  local run_id, call_id, address, key = command[3], command[4], command[5], command[9]
  if key ~= '' then
    local value = named[key] or redis.call('GET', prefix .. 'key:' .. key)
    if value then
      local known, fingerprint = string.match(value, '^([^:]*):(.*)$')
      return { known, 0, fingerprint ~= command[10] and 1 or 0 }
    end
  end
  if is_known(run_id) then return { run_id, 0, 0 } end
  local due, phase = due_of(command[7], command[8]), TIMED
  if due > 0 then
    await(due, address)
  else
    phase = paired and OUTBOX or QUEUED
    due = paired and now + OUTBOX_MS or 0
    send(run_id, call_id, 0, address)
  end
  local call = { false, false, phase, 0, 0, 0, due, '', address, '', 0, -1, NONE, 0, 0, false, 0 }
  local one = { command, call }
  begun[run_id], begun[#begun + 1] = one, one
  if key ~= '' then named[key] = run_id .. ':' .. command[10] end
  return { run_id, 1, 0 }
end

local function write(command, call)
  local run_id, call_id, body, key = command[3], command[4], ARGV[command[6]], command[9]
  local fields = { 'h', new_header, 'c:' .. call_id, false }
  if #body > SMALL then
    fields[5], fields[6] = 'b:' .. call_id, body
  else
    call[C_BODY] = body
  end
  fields[4] = cmsgpack.pack(unpack(call, C_PHASE))
  if key ~= '' then
    fields[#fields + 1], fields[#fields + 2] = 'k', key
    redis.call('SET', prefix .. 'key:' .. key, named[key])
  end
  redis.call('HSET', prefix .. 'run:' .. run_id, unpack(fields))
  if call[C_DUE] > 0 then
    redis.call('ZADD', KEYS[1], call[C_DUE], run_id .. ':' .. call_id .. ':' .. service_of(call[C_ADDRESS]))
  end
end

local function main()
  begin_request()
  begin_messages()
  begun, named = {}, {}
  local other = other_format()
  if other then return { 2, other } end
  -- A client of a single server that has the queues, too, does not look after timers.
  local tells_due = paired or KEYS[2]
  if tells_due then set_clock() end
  local replies = {}
  for number = 1, settings[8] do
    local ok, reply = pcall(begin, read(WIDTH))
    if not ok then return { 1, 'command', number, problem_of(reply) } end
    replies[number] = reply
  end
  local enqueued = NONE
  if paired then enqueued = copies() else write_messages() end
  for _, one in ipairs(begun) do write(one[1], one[2]) end
  local due = (tells_due or awaited) and next_due() or -1
  if not paired then wake() end
  return { 0, replies, NONE, enqueued, due, 0 }
end

return main()
