-- Answers a request that haproxy.cfg refuses: txn.refused is the status and the reason.
--
-- The rest of the request is read first, for some three seconds. A connection that is closed with data unread is reset by the
-- kernel, and the client, which is still sending, may never see why. One that sends a byte now and then stays longer, and takes
-- no buffer meanwhile, but of tune.lua.maxmem. API: https://www.arpalert.org/src/haproxy-lua-api/2.6/
core.register_service("refuse", "http", function(applet)
  local last = core.now().sec + 3
  while #applet:receive(4096) > 0 and core.now().sec < last do end
  local status, reason = applet:get_var("txn.refused"):match("^(%d+) (.*)$")
  local form = '{"error": "%s", "errors": [{"instance": null, "column": null, "error": "%s"}], "request_id": "%s"}'
  local body = form:format(reason, reason, applet:get_var("txn.id"))
  applet:set_status(tonumber(status))
  applet:add_header("Content-Type", "application/json")
  applet:add_header("Content-Length", tostring(#body))
  applet:add_header("Connection", "close")
  if status == "429" or status == "503" then
    applet:add_header("Retry-After", "1")
  end
  applet:start_response()
  applet:send(body)
end)
