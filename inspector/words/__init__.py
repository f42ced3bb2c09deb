"""Words about records: what can be read off them (``facts``), when which sentence is true, and the sentences themselves
(``english``), which are data so that a second language is one file."""
