-- joins.lua: of the rules in transition.lua, those of joins and gathers.

setmetatable(joining, { __index = function(_, name)

function joining.make(run, call_id, maker, joined, gathered)
  add(
    run, call_id, maker[M_ADDRESS], maker[M_BODY], maker[M_DELAY], maker[M_AT],
    maker[M_SCOPE], maker[M_MEMBER], joined, gathered
  )
end

function joining.take_results(run, scope, first, size)
  for number = first, size - 1 do put(run, 'r:' .. scope .. ':' .. digits[number], false) end
end

-- Forget the results of a gather, in pieces if there are many.
function joining.forget(run, call_id, address, size)
  if size > BROUGHT then
    rare.rest_of(run, call_id, address)[N_RESULTS] = size
  else
    joining.take_results(run, call_id, 0, size)
  end
end

function joining.set_timer(run, id, address, due)
  timers[run.id .. ':' .. id .. ':' .. service_of(address)] = due
end

function joining.position(list, wanted)
  for number, one in ipairs(list) do
    if one == wanted then return number end
  end
end

function joining.forget_late(run, join)
  local late = join[J_LATE]
  if late and not late[5] then put(run, 'b:' .. late[1], false) end
end

-- Say whether nothing is missing: the join is to fire now.
function joining.register(run, join_id, join)
  local missing, outside = 0, 0
  for number, event in ipairs(join[J_EVENTS]) do
    join[J_BEFORE][number] = ''
    if not get(run, 'e:' .. event) then
      missing = missing + 1
      if joining.position(join[J_EXTERNAL], event) then outside = outside + 1 end
      join[J_BEFORE][number] = get(run, 'w:' .. event) or ''
      put(run, 'w:' .. event, join_id)
    end
  end
  if missing == 0 then return true end
  join[J_MISSING], join[J_OUTSIDE] = missing, outside
  put(run, 'j:' .. join_id, join)
  if outside > 0 then count(run, H_EXTERNAL, 1) end
  if join[J_DUE] > 0 then
    count(run, H_TIMED, 1)
    joining.set_timer(run, join_id, join[M_ADDRESS], join[J_DUE])
    await(join[J_DUE], join[M_ADDRESS])
  end
  return false
end

-- Say whether the event is new.
function joining.emit(run, event, payload)
  if get(run, 'e:' .. event) then return false end
  put(run, 'e:' .. event, payload)
  count(run, H_EVENTS, 1)
  local ready = {}  -- in the opposite order of registration
  local join_id = get(run, 'w:' .. event) or ''
  if join_id ~= '' then put(run, 'w:' .. event, false) end
  while join_id ~= '' do
    local join = get(run, 'j:' .. join_id)
    join[J_MISSING] = join[J_MISSING] - 1
    if joining.position(join[J_EXTERNAL], event) and not join[J_LAPSED] then
      join[J_OUTSIDE] = join[J_OUTSIDE] - 1
      if join[J_OUTSIDE] == 0 then count(run, H_EXTERNAL, -1) end
    end
    if join[J_MISSING] == 0 then
      put(run, 'j:' .. join_id, false)
      if not join[J_LAPSED] then ready[#ready + 1] = { join_id, join } end
    else
      mark(run, 'j:' .. join_id)
    end
    join_id = join[J_BEFORE][joining.position(join[J_EVENTS], event)]
  end
  for number = #ready, 1, -1 do
    local join = ready[number][2]
    if join[J_DUE] > 0 then
      count(run, H_TIMED, -1)
      joining.set_timer(run, ready[number][1], join[M_ADDRESS], false)
      joining.forget_late(run, join)
    end
    joining.make(run, ready[number][1], join, join[J_EVENTS], -1)
    leave(run, join[M_SCOPE])  -- the join's own place, after its call has taken one
  end
  return true
end

-- new: { call id, address, body, delay_ms, due_ms, events, external, timeout_ms, late } from 2 on;
-- late: { call id, address, body, delay_ms, due_ms }, or false
function joining.add_join(run, new, scope, member)
  local body, due, late = stow(run, new[2], ARGV[new[4]]), 0, new[10]
  if new[9] > 0 then due = now + new[9] end
  if late then
    late = { late[1], late[2], late[4], late[5], stow(run, late[1], ARGV[late[3]]) }
  end
  local join = {
    new[3], new[5], new[6], scope, member, body, new[7], new[8], {}, 0, 0, due, late, false,
  }
  if joining.register(run, new[2], join) then
    joining.forget_late(run, join)
    joining.make(run, new[2], join, new[7], -1)
  else
    enter(run, scope, 1)
  end
end

-- new: { call id, address, body, delay_ms, due_ms, count of members, tolerated, staged } from 2 on
function joining.add_gather(run, new, members, scope, member)
  local body = stow(run, new[2], ARGV[new[4]])
  local size = #members + new[9]
  local record = { new[3], new[5], new[6], scope, member, body, size, new[8], 0, false, 0, [S_WRITE] = true }
  if size == 0 then
    joining.make(run, new[2], record, NONE, 0)
    return
  end
  if run.scopes == NONE then run.scopes = {} end
  run.scopes[new[2]] = record
  enter(run, scope, 1)
  for number, call in ipairs(members) do add_new(run, call, new[2], number - 1) end
  if new[9] > 0 then rare.count_staged(run, new[2], new[9]) end
end

return rawget(joining, name)
end })
