"""Adding a model in the console, in four steps: choose → what fits → settings → start.

Nothing is kept between the steps but what stands in the address, so that each can be reloaded, gone back from and opened twice.
"""
