"""tools/compare: the scenarios of the gateway through natfix and through what else there is.

:mod:`worlds` says what stands on the gateway and what a machine may lack for it, :mod:`parts` what a
scenario's part is and when it has passed; :mod:`calls`, :mod:`parties`, :mod:`media` and :mod:`trouble`
hold the parts, made of the :mod:`ends` of calls and of what the scenario tests set up. :mod:`trace` finds
the packet that decided a failure, :mod:`cell` plays one scenario in one world, :mod:`table` shows the
verdicts, :mod:`__main__` is the command.

A part that fails is played a second time, and the second try counts, for all four alike: on a busy machine
a phone may be late. The table says where that was needed, the JSON has what decided each try. What a world
cannot have, a process that can be killed, is not applicable by rule (:data:`cell.NO_PROCESS`), before
anything is played.
"""
