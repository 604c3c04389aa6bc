"""Tables and the sizes of a call -> everything the call needs, in numbers."""
