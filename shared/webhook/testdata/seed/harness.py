"""Plays Flask for verify.py, named by argument 1; input and output as harness.mjs."""
import json
import sys


class App:
    def route(self, _path, methods):
        return lambda handler: setattr(self, "handler", handler)


class Headers(dict):
    def get(self, name):
        return super().get(name.lower())


class Request:
    def __init__(self, headers, body):
        self.headers, self.body, self.json = Headers(headers), body, json.loads(body)

    def get_data(self, as_text):
        return self.body


scope = {"app": App()}
exec(open(sys.argv[1], encoding="utf-8").read(), scope)
statuses = []
for case in json.load(sys.stdin):
    scope.update(WEBHOOK_SECRET=case["secret"], request=Request(case["headers"], case["body"]))
    statuses.append(scope["app"].handler()[1])
print(json.dumps(statuses))
