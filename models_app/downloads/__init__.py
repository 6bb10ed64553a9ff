"""Getting model files: from a hub, an address, or an upload, into the models folder.

``addresses`` says where may be asked, ``transport`` and ``http`` ask, ``hubs`` know what a repository holds, ``fetch`` brings one
file, ``staging`` keeps what is not whole yet, ``worker`` does it all within the supervisor. What is wanted is written by
``services``; how it goes by the worker only.
"""
