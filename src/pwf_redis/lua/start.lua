-- start.lua: begin runs, and nothing else. One atomic step: that of exchange.lua for such commands alone.
--
-- Clients start runs one by one, and then most of an exchange's time is spent on making functions that
-- no start needs. Here are only those that it does need (scripts.py).
--
-- KEYS[1]   see runs.lua
-- ARGV[1]   the request of exchange.lua, with no sweep and nothing to take
-- ARGV[n]   payloads
--
-- Reply:    that of exchange.lua

local function start()
  local other = other_format()
  if other then return { 2, other } end
  local replies = {}
  for number, command in ipairs(read_commands()) do
    local ok, reply = pcall(apply, command)
    if not ok then return { 1, 'command', number, problem_of(reply) } end
    replies[number] = reply
  end
  local enqueued = NONE
  if paired then enqueued = copies() else write_messages() end
  flush()
  local due = next_due()
  if not paired then wake() end
  return { 0, replies, NONE, enqueued, due, 0 }
end

return start()
