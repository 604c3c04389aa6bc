"""Program -> Program, one file a pass; `pipeline` holds their order.

Non-Goals: anything about machines, layouts or text.
"""
