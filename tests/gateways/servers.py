"""Configurations of nginx, HAProxy, Caddy and lighttpd, with a path for each behaviour."""

import pathlib
import re

from harness import REFUSING_PORT

# Sizes of nginx' buffers. The first of them must hold the headers of a response.
BUFFERS = ("1k", "2k", "4k", "8k", "16k", "32k", "64k", "128k")
USER, PASSWORD = "someone", "something"


def nginx(directory: pathlib.Path, port: int, simulator: int) -> str:
    """Returns a configuration of nginx, which answers `/NAME/…` as the name requires."""
    upstream = f"http://127.0.0.1:{simulator}/"
    proxied = {
        "ok": "",
        "modern": 'proxy_http_version 1.1; proxy_set_header Connection "";',
        "off": "proxy_buffering off;",
        "gzip": "gzip on; gzip_types *; gzip_min_length 1; gzip_proxied any; proxy_buffering off;",
        "slow": "proxy_read_timeout 1s;",
        "large": "client_max_body_size 1k;",
        "basic": f"auth_basic api; auth_basic_user_file {directory}/users;",
        "deny": "deny all;",
        "limit503": "limit_req zone=a;",
        "limit429": "limit_req zone=b; limit_req_status 429;",
        "pages": "proxy_intercept_errors on; error_page 500 502 503 504 =503 /page.html;",
        **{f"b{size}": f"proxy_buffer_size {size}; proxy_buffers 8 {size};" for size in BUFFERS},
    }
    returned = {
        "https": "301 https://$host:$server_port$request_uri",
        "silent": "444",
        "nothing": "200",
        "plain": "503 'try again later'",
        "portal": "200 '<html><body>Welcome</body></html>'",
        "refused": "400",
    }
    temporary = "\n".join(
        f"{name}_temp_path {directory}/nginx-{name};"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    locations = [f"location /{name}/ {{ {how} proxy_pass {upstream}; }}"
                 for name, how in proxied.items()]  # fmt: skip
    locations += [f"location /{name}/ {{ return {what}; }}" for name, what in returned.items()]
    return f"""
daemon off; master_process off; pid {directory}/nginx.pid; error_log {directory}/nginx.error;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    {temporary}
    limit_req_zone $server_port zone=a:32k rate=1r/m;
    limit_req_zone $server_port zone=b:32k rate=1r/m;
    server {{
        listen 127.0.0.1:{port};
        root {directory}/files;
        default_type text/html;
        {chr(10).join(locations)}
        location /dead/ {{ proxy_pass http://127.0.0.1:{REFUSING_PORT}/; }}
        location = /page.html {{ internal; return 503 '<html>Sorry</html>'; }}
    }}
}}
"""


def haproxy(port: int, simulator: int) -> str:
    """Returns a configuration of HAProxy, which answers `/NAME/…` as the name requires."""
    proxied = {
        "ok": "",
        "delayless": "option http-no-delay",
        "slow": "timeout server 1s",
        "gzip": "compression algo gzip\n    compression type application/json text/event-stream",
        "basic": "http-request auth realm api unless { http_auth(people) }",
        "deny": "http-request deny",
        "limit": "http-request deny deny_status 429",
        "silent": "http-request reject",
        "nothing": "http-request return status 200",
        "large": "http-request deny deny_status 413 if { req.hdr_val(content-length) gt 1024 }",
        "plain": "http-request return status 503 content-type text/plain string later",
    }
    backends = "".join(
        f"backend {name}\n    {how}\n    http-request set-path %[path,regsub(^/[^/]*/,/)]\n"
        f"    server simulator 127.0.0.1:{simulator}\n"
        for name, how in proxied.items()
    )
    return f"""
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
userlist people
    user {USER} insecure-password {PASSWORD}
frontend all
    bind 127.0.0.1:{port}
    use_backend %[path,field(2,/)]
{backends}
backend dead
    server unused 127.0.0.1:{REFUSING_PORT}
backend empty
"""


def caddy(version: str, port: int, other_port: int, simulator: int, password_hash: str) -> str:
    """Returns a configuration of Caddy, which answers `/NAME/…` as the name requires.

    At the other port it serves another host only.
    """
    # It reads a request before it passes it on. If a service answers while Caddy still expects the
    # end of the request, as the fast simulator does, Caddy 2.6 now and then closes that connection,
    # and cuts the answer off.
    whole = "buffer_requests" if re.match(r"v?2\.[0-6]\.", version) else "request_buffers 64KiB"
    proxy = f"reverse_proxy 127.0.0.1:{simulator} {{\n {whole}\n }}"
    slow = proxy.replace("}", "transport http {\n response_header_timeout 1s\n }\n }")
    paths = {
        "ok": proxy,
        "gzip": f"encode gzip\n {proxy}",
        "dead": f"reverse_proxy 127.0.0.1:{REFUSING_PORT}",
        "slow": slow,
        "deny": "respond 403",
        "gone": "respond 404",
        "plain": 'respond "no upstream" 503',
        "large": "respond 413",
        "basic": f"basicauth {{\n {USER} {password_hash}\n }}\n {proxy}",
        "silent": "abort",
    }
    handlers = "\n".join(f"handle_path /{name}/* {{\n {how}\n}}" for name, how in paths.items())
    return f"""
{{
    admin off
    auto_https off
}}
http://127.0.0.1:{port} {{
    bind 127.0.0.1
    {handlers}
}}
http://other.test:{other_port} {{
    bind 127.0.0.1
    {proxy}
}}
"""


def lighttpd(directory: pathlib.Path, port: int, simulator: int) -> str:
    """Returns a configuration of lighttpd, which answers `/NAME/…` as the name requires."""

    def at(name: str, how: str, upstream: int = simulator) -> str:
        return (
            f'$HTTP["url"] =~ "^/{name}/" {{ {how}\n'
            f' proxy.header = ( "map-urlpath" => ( "/{name}/" => "/" ) )\n'
            f' proxy.server = ( "" => (( "host" => "127.0.0.1", "port" => {upstream} )) ) }}\n'
        )

    realm = '( "method" => "basic", "realm" => "api", "require" => "valid-user" )'
    return f"""
server.modules = ( "mod_access", "mod_auth", "mod_authn_file", "mod_proxy" )
server.bind = "127.0.0.1"
server.port = {port}
server.document-root = "{directory}/files"
server.errorlog = "{directory}/lighttpd.error"
auth.backend = "plain"
auth.backend.plain.userfile = "{directory}/passwords"
{at("ok", "")}
{at("streaming", "server.stream-response-body = 1")}
{at("deny", 'url.access-deny = ( "" )')}
{at("basic", f'auth.require = ( "" => {realm} )')}
{at("large", "server.max-request-size = 1")}
{at("dead", "", REFUSING_PORT)}
"""
