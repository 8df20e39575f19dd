"""What earlier versions have left in queues and stores, as files; every later version must read it.

One folder a version of the formats (`v1`), written once by `python -m tests.golden.write 1` and then
never again: a later version adds a folder beside it, and scenes to `scenes.py`. Names and handlers of
scenes stay, since the files name them.

    fused.json, paired.json   a namespace of Redis, with a run for every scene
    messages.json             bodies of broker messages
    values.json               arguments, results and payloads of events, of every kind of type
"""
