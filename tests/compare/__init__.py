"""tools/compare: the scenarios of the gateway through natfix and through what else there is.

:mod:`worlds` says what stands on the gateway, :mod:`parts` what a scenario's part is and when it has passed;
:mod:`calls`, :mod:`parties`, :mod:`media` and :mod:`trouble` hold the parts, made of the :mod:`ends` of
calls. :mod:`trace` finds the packet that decided a failure, :mod:`cell` plays one scenario in one world,
:mod:`table` shows the verdicts, :mod:`__main__` is the command.
"""
