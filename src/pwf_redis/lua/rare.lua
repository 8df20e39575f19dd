-- rare.lua: of the rules in transition.lua, those that few exchanges need: for calls that fail, wait, come
-- in parts or are late, and for what people ask.

setmetatable(rare, { __index = function(_, name)

function rare.set_reason(run, reason)
  if reason ~= reason_of(run) then put(run, 'y', reason ~= '' and reason) end
end

function rare.is_failure(result)
  return result and #result > 5 and string.byte(result) == EXTENSION and string.byte(result, 6) == FAILURE
end

function rare.fail_member(run, scope, member, reason)
  local inner = {}
  while scope ~= '' do
    local record = get_scope(run, scope)
    local field = 'r:' .. scope .. ':' .. digits[member]
    local before = rare.is_failure(get(run, field))
    if before or record[S_FAILED] < record[S_TOLERATED] then
      if not before then
        local text = string.sub(reason, -LONGEST)
        put(run, field, struct.pack('>BI4B', EXTENSION, #text, FAILURE) .. text)
        record[S_FAILED] = record[S_FAILED] + 1
        record[S_WRITE] = true
      end
      for _, one in ipairs(inner) do one[S_LOST], one[S_WRITE] = true, true end
      return true
    end
    inner[#inner + 1] = record
    scope, member = record[M_SCOPE], record[M_MEMBER]
  end
  return false
end

function rare.lose(run, scope)
  while scope ~= '' do
    local record = get_scope(run, scope)
    record[S_LOST], record[S_WRITE] = true, true
    scope = record[M_SCOPE]
  end
end

-- Have a member, of which something is gone for good, fail; or else the run.
function rare.fail(run, scope, member, reason)
  if rare.fail_member(run, scope, member, reason) then return end
  rare.lose(run, scope)
  count(run, H_DROPPED, 1)
  rare.set_reason(run, reason)
end

function rare.blame(call_id, address, reason)
  return address .. ' (' .. call_id .. '): ' .. reason
end

function rare.count_staged(run, scope, size)
  count(run, H_LIVE, size)
  enter(run, scope, size)
end

-- Return what is left to do of a call that has gone, with a timer to do it.
function rare.rest_of(run, call_id, address)
  local rest = get(run, 'n:' .. call_id)
  if not rest then
    rest = { address, now, '', 0, 0, 0, 0, NONE }
    local rests = header(run)[H_RESTS]
    rests[#rests + 1] = call_id .. ':' .. service_of(address)
    run.write = true
    joining.set_timer(run, call_id, address, now)
    await(now, address)
  end
  put(run, 'n:' .. call_id, rest)
  return rest
end

function rare.unstage(run, call_id, call)
  for number = 0, call[C_CHUNKS] - 1 do put(run, 'u:' .. call_id .. ':' .. number, false) end
  call[C_CHUNKS] = 0
end

-- Do the next piece of what is left.
function rare.move_on(run, id, rest)
  if rest[N_CHUNK] < rest[N_CHUNKS] then
    local field = 'u:' .. id .. ':' .. rest[N_CHUNK]
    local calls = cmsgpack.unpack(get(run, field))
    for at = 1, #calls, U_WIDTH do
      local scope, member, gather = rest[N_SCOPE], rest[N_MEMBER], calls[at + 5]
      if gather >= 0 then scope, member = rest[N_GATHERS][gather + 1], calls[at + 6] end
      local body = stow(run, calls[at], calls[at + 2])
      add(
        run, calls[at], calls[at + 1], body, calls[at + 3], calls[at + 4], scope, member, NONE, -1, true
      )
    end
    put(run, field, false)
    rest[N_CHUNK] = rest[N_CHUNK] + 1
  else
    local first = math.max(rest[N_RESULTS] - PAGE, 0)
    joining.take_results(run, id, first, rest[N_RESULTS])
    rest[N_RESULTS] = first
  end
  if rest[N_CHUNK] < rest[N_CHUNKS] or rest[N_RESULTS] > 0 then
    rest[N_DUE] = now
    mark(run, 'n:' .. id)
    joining.set_timer(run, id, rest[N_ADDRESS], now)
    await(now, rest[N_ADDRESS])
  else
    put(run, 'n:' .. id, false)
    local rests = header(run)[H_RESTS]
    table.remove(rests, joining.position(rests, id .. ':' .. service_of(rest[N_ADDRESS])))
    run.write = true
    joining.set_timer(run, id, rest[N_ADDRESS], false)
  end
end

function rare.explain(run, call_id, call, reason)
  if reason ~= '' then
    put(run, 'y:' .. call_id, reason)
    call[C_REASON] = 1
  elseif call[C_REASON] == 1 then
    put(run, 'y:' .. call_id, false)
    call[C_REASON] = 0
  end
end

function rare.bury(run, call_id, call, reason)
  local blamed = rare.blame(call_id, call[C_ADDRESS], reason)
  if rare.fail_member(run, call[C_SCOPE], call[C_MEMBER], blamed) then
    remove(run, call_id, call)
    return
  end
  call[C_PHASE] = DEAD
  call[C_CLAIM] = ''
  call[C_DUE] = 0
  call[C_WRITE] = true
  rare.explain(run, call_id, call, reason)
  count(run, H_LIVE, -1)
  count(run, H_DEAD, 1)
  rare.set_reason(run, blamed)
  local name = name_of(run, call_id, call)
  timers[name] = false
  letters[name] = now
end

function rare.revive(run, call_id, call)
  count(run, H_DEAD, -1)
  count(run, H_LIVE, 1)
  if header(run)[H_DEAD] == 0 and run.h[H_DROPPED] == 0 then rare.set_reason(run, '') end
  letters[name_of(run, call_id, call)] = false
end

function rare.lapse(run, join_id, join)
  local late = join[J_LATE]
  if not join[M_BODY] then put(run, 'b:' .. join_id, false) end
  join[J_LAPSED], join[J_DUE], join[J_LATE], join[M_BODY] = true, 0, false, ''
  mark(run, 'j:' .. join_id)
  count(run, H_TIMED, -1)
  if join[J_OUTSIDE] > 0 then count(run, H_EXTERNAL, -1) end
  local happened, missing = {}, {}
  for _, event in ipairs(join[J_EVENTS]) do
    if get(run, 'e:' .. event) then
      happened[#happened + 1] = event
    else
      missing[#missing + 1] = event
    end
  end
  if late then
    add(
      run, late[1], late[2], late[5], late[3], late[4],
      join[M_SCOPE], join[M_MEMBER], happened, -1
    )
  else
    local words = 'its join timed out without ' .. table.concat(missing, ', ')
    rare.fail(run, join[M_SCOPE], join[M_MEMBER], rare.blame(join_id, join[M_ADDRESS], words))
  end
  leave(run, join[M_SCOPE])  -- the join's own place, after its call has taken one
end

-- Read all open calls, and all joins if wanted.
function rare.read_open(run, with_joins)
  if run.wiped then return end
  local unknown = {}
  for _, field in ipairs(redis.call('HKEYS', run.key)) do
    local kind = string.sub(field, 1, 2)
    if kind == 'c:' or (with_joins and kind == 'j:') then unknown[#unknown + 1] = field end
  end
  fetch(run, unknown)
end

function rare.cancel(run, reason)
  -- LIMIT: all that is open goes in one stroke, which takes time for each call and join.
  rare.read_open(run, true)
  for call_id, call in pairs(run.calls) do
    if call then
      local name = name_of(run, call_id, call)
      if call[C_PHASE] == DEAD then
        letters[name] = false
      elseif call[C_DUE] ~= 0 then
        timers[name] = false
      end
    end
  end
  for field, join in pairs(run.has) do
    if join and string.byte(field) == 106 and join[J_DUE] > 0 then  -- j
      joining.set_timer(run, string.sub(field, 3), join[M_ADDRESS], false)
    end
  end
  local h = header(run)
  for _, what in ipairs({ H_PENDING, H_LIVE, H_DEAD, H_DROPPED, H_EXTERNAL, H_TIMED }) do h[what] = 0 end
  h[H_STATUS] = CANCELLED
  run.write = true
  rare.set_reason(run, reason)
  finish(run)
end

function rare.expire(run)
  local due = header(run)[H_DUE]
  if due == 0 or due > now then return STALE end
  -- LIMIT: a run is deleted in one stroke. Its memory is freed by another thread; what costs time
  -- here is one entry of `dead` per dead letter.
  rare.read_open(run, false)
  for call_id, call in pairs(run.calls) do
    if call then letters[name_of(run, call_id, call)] = false end
  end
  drop_rests(run)
  set_run_timer(run, false)
  delete_run(run)
  return DONE
end

-- STAGE, run id, call id, claim id, number, count; then calls: call id, address, body, delay_ms, due_ms,
-- number of the gather or -1, number of the member. They become [1].
rare[STAGE] = function(run, command)
  local call_id, number = command[4], command[6]
  local call, problem = claimed(run, call_id, command[5])
  if not call then return problem end
  if number == call[C_CHUNKS] then
    local part = {}
    for _, new in ipairs(command[1]) do
      local at = #part
      part[at + 1], part[at + 2], part[at + 3] = new[2], new[3], ARGV[new[4]]
      part[at + 4], part[at + 5], part[at + 6], part[at + 7] = new[5], new[6], new[7], new[8]
    end
    put(run, 'u:' .. call_id .. ':' .. number, cmsgpack.pack(part))
    call[C_CHUNKS] = number + 1
    call[C_WRITE] = true
  end
  return number < call[C_CHUNKS] and DONE or LOST
end

-- COLLECT, run id, call id, claim id, first. Replies with a list of results, false for none.
rare[COLLECT] = function(run, command)
  local call_id, first = command[4], command[6]
  local call, problem = claimed(run, call_id, command[5])
  if not call then return problem end
  local page, count, size = {}, 0, 0
  local final = math.min(call[C_GATHERED], first + PAGE) - 1
  for start = first, final, 50 do
    local fields = {}
    for number = start, math.min(start + 49, final) do
      fields[number - start + 1] = 'r:' .. call_id .. ':' .. number
    end
    -- Its members have all ended, so that nothing in hand is newer than what is stored.
    for _, value in ipairs(redis.call('HMGET', run.key, unpack(fields))) do
      count = count + 1
      page[count] = value
      size = size + #(value or '')
      if size >= PAGE_BYTES then return page end
    end
  end
  return page
end

-- POSTPONE, run id, call id, claim id, counts, phase, delay_ms, reason
rare[POSTPONE] = function(run, command)
  local call_id = command[4]
  local call, problem = claimed(run, call_id, command[5])
  if not call then return problem end
  if not command[6] then call[C_ATTEMPTS] = call[C_ATTEMPTS] - 1 end
  rare.explain(run, call_id, call, command[9])
  call[C_GENERATION] = call[C_GENERATION] + 1
  schedule(run, call_id, call, command[8], command[7])
  return DONE
end

-- BURY, run id, call id, claim id, reason
rare[BURY] = function(run, command)
  local call, problem = claimed(run, command[4], command[5])
  if not call then return problem end
  rare.bury(run, command[4], call, command[6])
  conclude(run)
  return DONE
end

-- EMIT, run id, event, payload
rare[EMIT] = function(run, command)
  if header(run)[H_PENDING] == 0 then return ENDED end
  if not joining.emit(run, command[4], ARGV[command[5]]) then return REFUSED end
  conclude(run)
  return DONE
end

function rare.fire_join(run, join_id)
  local join = get(run, 'j:' .. join_id)
  if not join then return ENDED end
  if join[J_DUE] == 0 or join[J_DUE] > now then return STALE end
  rare.lapse(run, join_id, join)
  conclude(run)
  return DONE
end

function rare.fire_rest(run, id, rest)
  if rest[N_DUE] > now then return STALE end
  rare.move_on(run, id, rest)
  has_rested = true
  return DONE
end

-- FIRE, run id, call id, id of a join, or ''
rare[FIRE] = function(run, command)
  local call_id = command[4]
  if call_id == '' then return rare.expire(run) end
  local call = get_call(run, call_id)
  if not call then
    local rest = get(run, 'n:' .. call_id)
    return rest and rare.fire_rest(run, call_id, rest) or rare.fire_join(run, call_id)
  end
  if call[C_DUE] == 0 or call[C_DUE] > now then return STALE end
  if call[C_PHASE] == LEASED then
    call[C_LOST] = call[C_LOST] + 1
    call[C_GENERATION] = call[C_GENERATION] + 1
    if call[C_LOST] >= MAX_LOST then
      local reason = 'its worker died, or held it without renewing the lease, %d times'
      rare.bury(run, call_id, call, string.format(reason, call[C_LOST]))
      conclude(run)
      return DONE
    end
  elseif call[C_PHASE] == QUEUED then
    call[C_UNCLAIMED] = call[C_UNCLAIMED] + 1
  end
  enqueue(run, call_id, call)
  return DONE
end

-- REQUEUE, run id, call id
rare[REQUEUE] = function(run, command)
  local call = get_call(run, command[4])
  if not call then return ENDED end
  if call[C_PHASE] ~= DEAD then return STALE end
  rare.revive(run, command[4], call)
  call[C_GENERATION] = call[C_GENERATION] + 1
  call[C_ATTEMPTS], call[C_LOST] = 0, 0
  enqueue(run, command[4], call)
  conclude(run)
  return DONE
end

-- DROP, run id, call id, dead, reason
rare[DROP] = function(run, command)
  local call_id = command[4]
  local call = get_call(run, call_id)
  if not call then return ENDED end
  local is_dead = call[C_PHASE] == DEAD
  if call[C_PHASE] == LEASED or is_dead ~= command[5] then return STALE end
  if is_dead then rare.revive(run, call_id, call) end
  rare.fail(run, call[C_SCOPE], call[C_MEMBER], rare.blame(call_id, call[C_ADDRESS], command[6]))
  remove(run, call_id, call)
  conclude(run)
  return DONE
end

-- CANCEL, run id, reason
rare[CANCEL] = function(run, command)
  if header(run)[H_PENDING] == 0 then return ENDED end
  rare.cancel(run, command[4])
  return DONE
end

return rawget(rare, name)
end })
