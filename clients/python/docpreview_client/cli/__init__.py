"""The `docpreview` command, on top of the client.

    app  >  command  >  session  >  views | preview | parameters

`app` says what each command does, `command` how any command runs: options, connection, errors, exit codes.
"""
