.PHONY: check demo lock
check:
	scripts/check
demo:
	steward demo
lock:
	scripts/lock
