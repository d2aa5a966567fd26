"""The HTTP server of step-level MDP environments.

`steppo_server.app.create_app` makes the ASGI application, `steppo_server.settings` reads what it allows.
Nothing is imported here: the processes of workers need neither the application nor its framework.
"""
