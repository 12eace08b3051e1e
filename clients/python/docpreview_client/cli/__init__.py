"""The `docpreview` command, on top of the client.

    app  >  command  >  session  >  views | preview | parameters

`app` has the commands, `command` what all of them share: options, connection, errors, exit codes.
"""
