// Last, when every kind of viewer is known.
start();
