# Loaded into the client process of Redis' test suite, behind its own files: writes down what becomes of each test, one line each, and
# keeps one failure from hiding others. Changes nothing in what a test asks and expects, save that it waits where order counts (below).
#
# A line is `kind TAB name TAB text`; backslash, newline, tab and carriage return are escaped. Kinds: those of the suite (`testing`,
# `ok`, `err`, `skip`, `ignore`, …), `tags` of the test that begins, and `setup`: what a block asked for before its tests and was refused.

set ::suite_log [open $::env(SUITE_LOG) a]
fconfigure $::suite_log -encoding utf-8 -translation lf -buffering line

# Whether the block's own preparation is running, and which test is.
set ::suite_preparing 0
set ::suite_test ""

proc suite_note {kind name {text ""}} {
    set escapes [list \\ \\\\ \n \\n \t \\t \r \\r]
    puts $::suite_log "$kind\t[string map $escapes $name]\t[string map $escapes $text]"
}

rename send_data_packet suite_send
proc send_data_packet {fd status data {elapsed 0}} {
    switch $status {
        testing { set ::suite_test $data; set ::suite_preparing 0; suite_note $status $data }
        ok - err {
            suite_note $status $::suite_test [expr {$status eq "ok" ? $elapsed : $data}]
            # An error outside of a test ends its block; what follows is the block's tidying up.
            if {$::suite_test eq ""} { set ::suite_preparing 1 }
            set ::suite_test ""
        }
        default { suite_note $status $data }
    }
    suite_send $fd $status $data $elapsed
}

# A test that failed may leave its connection closed, in MULTI or with replies unread, a script running or the clients paused: the next one
# gets a new one.
rename test suite_run
proc test {name code {okpattern undefined} {tags {}}} {
    set failed $::num_failed
    suite_note tags $name [concat $::tags $tags]
    uplevel 1 [list suite_run $name $code $okpattern $tags]
    if {$::num_failed > $failed} {
        catch reconnect
        catch {suite_r script kill}
        catch {suite_r client unpause}
    }
}

# What is asked for before and between tests (FUNCTION FLUSH, CONFIG SET) may be unknown to the server: then this is noted, and the
# tests run all the same.
rename r suite_r
proc r args {
    if {!$::suite_preparing && $::suite_test ne ""} { return [uplevel 1 [list suite_r {*}$args]] }
    if {[catch {uplevel 1 [list suite_r {*}$args]} answer]} {
        suite_note setup $args $answer
        return {}
    }
    return $answer
}

rename run_external_server_test suite_block
proc run_external_server_test {code overrides} {
    set before $::suite_preparing
    set ::suite_preparing 1
    uplevel 1 [list suite_block "set ::suite_preparing 0\n$code\nset ::suite_preparing 1" $overrides]
    set ::suite_preparing $before
}

# Tests that the suite leaves to servers of its own, put to this one all the same: the stock server says which of them can pass so.
rename tags_acceptable suite_acceptable
proc tags_acceptable {tags err_return} {
    upvar $err_return err
    if {$::env(SUITE_FORCED)} { set tags [lsearch -all -inline -not -exact $tags external:skip] }
    suite_acceptable $tags err
}

# Some tests send a command that blocks, or EXEC, on one connection and the next command on another without waiting, and count on their order: one
# thread that serves all connections keeps it, several do not. Later versions of the suite wait until the first one blocks; here there is a
# moment between the two.
set ::suite_ordered {blpop brpop blmove brpoplpush blmpop bzpopmin bzpopmax bzmpop xread xreadgroup exec}
rename ::redis::__dispatch__ ::redis::suite_dispatch
proc ::redis::__dispatch__ {id method args} {
    set answer [uplevel 1 [list ::redis::suite_dispatch $id $method {*}$args]]
    if {[string tolower $method] in $::suite_ordered && [info exists ::redis::deferred($id)] && $::redis::deferred($id)} { after 10 }
    return $answer
}
