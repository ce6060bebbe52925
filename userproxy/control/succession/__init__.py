"""One daemon hands the node over to another that is started beside it: in the next pod of a rolling update.

```
heir                                          incumbent
  reads its configuration, follows its source
  "take-over" ──────────────────────────────>   stops applying, leaves its workers to themselves,
                                                gives up table, admin socket and the node's lock
  <─────────── what it has counted, with the listening sockets of its HTTP servers
  takes the lock, hires workers, which take
  over the listeners; adopts the rules
  "taken" ──────────────────────────────────>   stays until the connections of its workers have ended,
                                                because its container, and they, would end with it
```

Nobody is without a daemon for longer than the heir takes to start workers, and these serve meanwhile. If the
heir dies before it says "taken", the incumbent starts anew in its own place.
"""
