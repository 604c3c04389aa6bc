"""Tables and the sizes of a call -> what the call launches."""
