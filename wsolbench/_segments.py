"""Boxes of every contour at every threshold, from one sweep over the levels of a score map.

A row is cut into segments that rise and then fall, so that the pixels above a level are an interval of each segment.
Going down the levels, segments appear at their peak and join at the greatest level that connects them: a union-find
over some thousand segments in place of contours traced at 255 levels.

Everywhere below, `levels` are uint8 maps with a ring of zeros around them, and row v of a table is for the mask
`levels >= v`. Holes come out of the same sweep over the inverted map with 4 neighbours in place of 8.
"""

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from wsolbench._compiled import compiled, inlined

Levels: TypeAlias = NDArray[np.uint8]
Ints: TypeAlias = NDArray[np.int32]
Longs: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]
Flags: TypeAlias = NDArray[np.bool_]
Wanted: TypeAlias = tuple[Flags, int]
"""Which rows are asked for, and how many of them are of masks with a pixel."""
Judge: TypeAlias = tuple[Floats, float, Floats]
"""The true boxes of a map, `last` as for `intersection_over_union`, and the IoUs to reach."""

ROWS = 257  # of a table: 0 is the whole map, 1 .. 255 are the masks; above the greatest level there is no pixel
STEP_X = np.array([1, 1, 0, -1, -1, -1, 0, 1])  # clockwise from the right
STEP_Y = np.array([0, 1, 1, 1, 0, -1, -1, -1])


class Segments(NamedTuple):
    """Row segments: those of row y have the numbers first[y] .. first[y + 1] - 1."""

    first: Ints
    start: Ints  # its columns are start .. stop - 1
    stop: Ints
    peak_x: Ints
    y: Ints


class Events(NamedTuple):
    """What happens at each level, as linked lists: `*_head[level]`, then `*_next[event]`, until -1."""

    segment_head: Ints  # the segment appears
    segment_next: Ints
    column_head: Ints  # the segment's component reaches column_x
    column_next: Ints
    column_segment: Ints
    column_x: Ints
    link_head: Ints  # the components of segments link_a and link_b join
    link_next: Ints
    link_a: Ints
    link_b: Ints


class Forest(NamedTuple):
    """Components, each under the smallest number of its segments."""

    parent: Ints
    x0: Ints
    y0: Ints
    x1: Ints  # inclusive
    y1: Ints
    top_x: Ints  # column of a pixel in row y0
    area: Ints  # twice the area of the outer contour when last traced; a lower bound since
    traced: Ints  # the level of that trace
    alive: Ints  # the numbers of the components, in any order
    place: Ints  # where in `alive`
    number: Ints  # how many are alive; one element


Room: TypeAlias = tuple[Segments, Events, Forest]


@compiled
def new_segments(rows: int, columns: int) -> Segments:
    """Room for the segments of any map of this size."""
    size = rows * ((columns + 1) // 2)
    return Segments(
        np.empty(rows + 1, np.int32),
        np.empty(size, np.int32),
        np.empty(size, np.int32),
        np.empty(size, np.int32),
        np.empty(size, np.int32),
    )


@compiled
def new_events(rows: int, columns: int) -> Events:
    """Room for the events of any map of this size: at most five links a segment."""
    segments = rows * ((columns + 1) // 2)
    peaks = columns * ((rows + 1) // 2)
    return Events(
        np.empty(256, np.int32),
        np.empty(segments, np.int32),
        np.empty(256, np.int32),
        np.empty(peaks, np.int32),
        np.empty(peaks, np.int32),
        np.empty(peaks, np.int32),
        np.empty(256, np.int32),
        np.empty(5 * segments, np.int32),
        np.empty(5 * segments, np.int32),
        np.empty(5 * segments, np.int32),
    )


@compiled
def new_forest(rows: int, columns: int) -> Forest:
    """Room for the components of any map of this size."""
    size = rows * ((columns + 1) // 2)
    return Forest(
        np.empty(size, np.int32),
        np.empty(size, np.int32),
        np.empty(size, np.int32),
        np.empty(size, np.int32),
        np.empty(size, np.int32),
        np.empty(size, np.int32),
        np.empty(size, np.int32),
        np.empty(size, np.int32),
        np.empty(size, np.int32),
        np.empty(size, np.int32),
        np.empty(1, np.int32),
    )


@compiled
def new_room(batch: Levels) -> Room:
    """Room for the sweep over any map of (N, H + 2, W + 2)."""
    rows, columns = batch.shape[1:]
    return new_segments(rows, columns), new_events(rows, columns), new_forest(rows, columns)


@compiled
def quantise(score_maps: NDArray[np.floating], levels: Levels) -> int:
    """Fill in trunc(255 * score) of (N, H, W) scores; the first map with a score outside [0, 1], or -1."""
    count, rows, columns = score_maps.shape
    for n in range(count):
        good: np.bool = np.bool_(True)
        for y in range(rows):
            scores, row = score_maps[n, y], levels[n, y + 1]
            for x in range(columns):
                score = np.float64(scores[x])
                good &= (score >= 0.0) & (score <= 1.0)
                row[x + 1] = np.uint8(np.int32(score * 255.0))
        if not good:
            return n
    return -1


@compiled
def add_segment(number: int, start: int, stop: int, peak_x: int, segments: Segments) -> int:
    """Write a segment down; the number of the next."""
    segments.start[number] = start
    segments.stop[number] = stop
    segments.peak_x[number] = peak_x
    return number + 1


@compiled
def cut_rows(levels: Levels, segments: Segments) -> None:
    """Cut each row into segments that rise weakly and then fall weakly."""
    rows, columns = levels.shape
    number = 0
    for y in range(rows):
        segments.first[y] = number
        row = levels[y]
        start, peak_x, falling, before = 0, 0, False, row[0]
        for x in range(1, columns):
            here = row[x]
            if falling:
                if here > before:
                    number = add_segment(number, start, x, peak_x, segments)
                    start, falling = x, False
            elif here < before:
                peak_x, falling = x - 1, True
            before = here
        number = add_segment(number, start, columns, peak_x if falling else columns - 1, segments)
    segments.first[rows] = number


@compiled
def list_segments(levels: Levels, segments: Segments, events: Events) -> None:
    """Let each segment appear at the level of its peak."""
    events.segment_head[:] = -1
    for y in range(len(levels)):
        for s in range(segments.first[y], segments.first[y + 1]):
            peak = levels[y, segments.peak_x[s]]
            events.segment_next[s] = events.segment_head[peak]
            events.segment_head[peak] = s
            segments.y[s] = y


@compiled
def find_ends(row: Levels, below: Levels, rising: Levels, ended: Levels) -> None:
    """Mark the columns in which a weakly rising run ends in `row`, and those in which one goes on in `below`."""
    for x in range(len(row)):
        ended[x] = rising[x] & np.uint8(below[x] < row[x])
        rising[x] = np.uint8(below[x] > row[x]) | (rising[x] & np.uint8(below[x] == row[x]))


@compiled
def list_columns(levels: Levels, segments: Segments, events: Events) -> None:
    """Let each segment reach the columns that have a local maximum in it.

    A component's leftmost column holds one of them: the maximum above and below any of its pixels there.
    """
    rows, columns = levels.shape
    events.column_head[:] = -1
    rising = np.ones(columns, np.uint8)
    ended = np.zeros((columns + 7) // 8 * 8, np.uint8)
    eights = ended.view(np.uint64)
    number = 0
    for y in range(rows - 1):
        find_ends(levels[y], levels[y + 1], rising, ended)
        s = segments.first[y]
        for eight in range(len(eights)):
            if eights[eight] == 0:
                continue
            for x in range(8 * eight, 8 * eight + 8):
                if ended[x]:
                    while segments.stop[s] <= x:
                        s += 1
                    number = add_column(number, levels[y, x], s, x, events)
    list_last_row(levels, segments, events, rising, number)


@compiled
def list_last_row(levels: Levels, segments: Segments, events: Events, rising: Levels, number: int) -> None:
    """End the runs that rise until the last row."""
    rows, columns = levels.shape
    s = segments.first[rows - 1]
    for x in range(columns):
        while segments.stop[s] <= x:
            s += 1
        if rising[x]:
            number = add_column(number, levels[rows - 1, x], s, x, events)


@compiled
def add_column(number: int, level: int, segment: int, x: int, events: Events) -> int:
    """Write down that a segment has a pixel of this level in column x; the number of the next such event."""
    events.column_segment[number] = segment
    events.column_x[number] = x
    events.column_next[number] = events.column_head[level]
    events.column_head[level] = number
    return number + 1


@compiled
def add_link(number: int, level: int, a: int, b: int, events: Events) -> int:
    """Write down that two segments touch from this level down; the number of the next such event."""
    events.link_a[number] = a
    events.link_b[number] = b
    events.link_next[number] = events.link_head[level]
    events.link_head[level] = number
    return number + 1


@compiled
def list_links(levels: Levels, segments: Segments, reach: int, events: Events) -> None:
    """Let segments join that are beside each other, or in neighbouring rows at most `reach` columns apart."""
    first, start, stop = segments.first, segments.start, segments.stop
    events.link_head[:] = -1
    number = 0
    for y in range(len(levels)):
        for a in range(first[y] + 1, first[y + 1]):
            number = add_link(number, levels[y, start[a] - 1], a - 1, a, events)
        if y + 1 == len(levels):
            break
        low = first[y + 1]
        for a in range(first[y], first[y + 1]):
            while stop[low] + reach <= start[a]:
                low += 1
            b = low
            while b < first[y + 2] and start[b] - reach < stop[a]:
                level = pass_level(levels[y], levels[y + 1], a, b, segments, reach)
                number = add_link(number, level, a, b, events)
                b += 1


@compiled
def clamp(value: int, low: int, high: int) -> int:
    """The nearest number to `value` from low to high."""
    return min(max(value, low), high)


@compiled
def pass_level(row: Levels, below: Levels, a: int, b: int, segments: Segments, reach: int) -> int:
    """The greatest level at which segment `a` of `row` touches segment `b` of the row below.

    From the peak of one to the peak of the other, the first falls and the second rises: the answer is where they meet.
    """
    low = max(segments.start[a], segments.start[b] - reach)
    high = min(segments.stop[a], segments.stop[b] + reach) - 1
    peak = segments.peak_x[b]
    x, goal = clamp(segments.peak_x[a], low, high), clamp(peak, low, high)
    step = 1 if goal > x else -1
    best = 0
    while True:
        other = below[x + clamp(peak - x, -reach, reach)]
        best = max(best, min(row[x], other))
        if other >= row[x] or x == goal:
            return best
        x += step


@compiled
def find_events(levels: Levels, reach: int, segments: Segments, events: Events) -> None:
    """All that happens between the highest and the lowest level of a map; reach is 1 for 8 neighbours, 0 for 4."""
    cut_rows(levels, segments)
    list_segments(levels, segments, events)
    list_columns(levels, segments, events)
    list_links(levels, segments, reach, events)


@compiled
def root_of(parent: Ints, s: int) -> int:
    """The component of segment s."""
    while parent[s] != s:
        parent[s] = parent[parent[s]]
        s = parent[s]
    return s


@compiled
def plant(s: int, x: int, y: int, forest: Forest) -> None:
    """A new component: one pixel of segment s."""
    forest.parent[s] = s
    forest.x0[s] = forest.x1[s] = forest.top_x[s] = x
    forest.y0[s] = forest.y1[s] = y
    forest.area[s] = 0
    forest.traced[s] = -1
    forest.place[s] = forest.number[0]
    forest.alive[forest.number[0]] = s
    forest.number[0] += 1


@compiled
def join(a: int, b: int, forest: Forest) -> None:
    """Make the component of segment b and that of segment a one."""
    a, b = root_of(forest.parent, a), root_of(forest.parent, b)
    if a == b:
        return
    a, b = min(a, b), max(a, b)
    forest.parent[b] = a
    if forest.y0[b] < forest.y0[a]:
        forest.y0[a], forest.top_x[a] = forest.y0[b], forest.top_x[b]
    forest.x0[a] = min(forest.x0[a], forest.x0[b])
    forest.x1[a] = max(forest.x1[a], forest.x1[b])
    forest.y1[a] = max(forest.y1[a], forest.y1[b])
    forest.area[a] = max(forest.area[a], forest.area[b])  # not the sum: one may lie in a hole of the other
    forest.number[0] -= 1
    last = forest.alive[forest.number[0]]
    forest.alive[forest.place[b]] = last
    forest.place[last] = forest.place[b]


@compiled
def descend(level: int, segments: Segments, events: Events, forest: Forest) -> None:
    """Let happen what happens at this level."""
    s = events.segment_head[level]
    while s >= 0:
        plant(s, segments.peak_x[s], segments.y[s], forest)
        s = events.segment_next[s]
    e = events.column_head[level]
    while e >= 0:
        a, x = root_of(forest.parent, events.column_segment[e]), events.column_x[e]
        forest.x0[a] = min(forest.x0[a], x)
        forest.x1[a] = max(forest.x1[a], x)
        e = events.column_next[e]
    e = events.link_head[level]
    while e >= 0:
        join(events.link_a[e], events.link_b[e], forest)
        e = events.link_next[e]


@inlined
def next_direction(pixels: Levels, columns: int, level: int, pixel: int, direction: int) -> int:
    """The first of eight directions, clockwise from `direction`, to a pixel of the mask; -1 if there is none."""
    for _ in range(8):
        direction &= 7
        if pixels[pixel + STEP_Y[direction] * columns + STEP_X[direction]] >= level:
            return direction
        direction += 1
    return -1


@compiled
def trace(levels: Levels, level: int, component: int, forest: Forest) -> None:
    """Walk the outer contour once around: twice the area of its polygon, and its first pixel."""
    pixels, columns = levels.reshape(-1), levels.shape[1]
    start_x, start_y = forest.top_x[component], forest.y0[component]
    x, y = np.int64(start_x), np.int64(start_y)
    forest.traced[component] = level
    first = next_direction(pixels, columns, level, y * columns + x, 0)
    twice_area, direction = 0, first
    while direction >= 0:
        step_x, step_y = STEP_X[direction], STEP_Y[direction]
        twice_area += x * step_y - y * step_x
        x, y = x + step_x, y + step_y
        if y == start_y and x < forest.top_x[component]:
            forest.top_x[component] = x
        direction = next_direction(pixels, columns, level, y * columns + x, direction + 5)
        if x == start_x and y == start_y and direction == first:
            break
    forest.area[component] = abs(twice_area)


@inlined
def area_bound(forest: Forest, level: int, component: int) -> int:
    """Twice the area that the outer contour can have at most: what was traced, or what fits into the box."""
    if forest.traced[component] == level:
        return forest.area[component]
    width = forest.x1[component] - forest.x0[component]
    return 2 * width * (forest.y1[component] - forest.y0[component])


@compiled
def survey(forest: Forest, level: int) -> tuple[int, int]:
    """The area that the largest contour has at least, and the component that may be the largest by far."""
    floor, widest, bound_of_widest = 0, -1, -1
    for i in range(forest.number[0]):
        component = forest.alive[i]
        floor = max(floor, forest.area[component])
        bound = area_bound(forest, level, component)
        if bound > bound_of_widest:
            widest, bound_of_widest = component, bound
    return floor, widest


@compiled
def trace_rivals(levels: Levels, level: int, widest: int, floor: int, forest: Forest) -> int:
    """Trace what can be larger than `floor`, if more than one component can; the area of the largest."""
    rivals = 0
    for i in range(forest.number[0]):
        rivals += area_bound(forest, level, forest.alive[i]) >= floor
    if rivals == 1 or area_bound(forest, level, widest) == 0:
        return floor
    trace(levels, level, widest, forest)
    floor = max(floor, forest.area[widest])
    for i in range(forest.number[0]):
        component = forest.alive[i]
        bound = area_bound(forest, level, component)
        if bound >= floor and bound > 0 and forest.traced[component] != level:
            trace(levels, level, component, forest)
            floor = max(floor, forest.area[component])
    return floor


@compiled
def largest(levels: Levels, level: int, forest: Forest) -> int:
    """The component with the greatest contour area; of equals the one whose first pixel comes last in the raster.

    A contour is traced only while boxes and older traces leave a rival.
    """
    floor, widest = survey(forest, level)
    floor = trace_rivals(levels, level, widest, floor, forest)
    winner, last = -1, np.int64(-1)
    for i in range(forest.number[0]):
        component = forest.alive[i]
        if area_bound(forest, level, component) >= floor:
            flat = forest.x0[component] if forest.traced[component] != level else forest.top_x[component]
            place = np.int64(forest.y0[component]) * levels.shape[1] + flat
            if place > last:
                winner, last = component, place
    return winner


@compiled
def table_row(threshold: float, greatest: int) -> int:
    """The row for the pixels above int(threshold * greatest)."""
    product = threshold * greatest
    if product >= greatest:
        return greatest + 1
    return 0 if product <= -1.0 else int(product) + 1


@compiled
def want_rows(thresholds: Floats, greatest: int, wanted: Flags) -> int:
    """Mark the rows that thresholds fall on; how many of them have a contour."""
    wanted[:] = False
    for t in range(len(thresholds)):
        wanted[table_row(thresholds[t], greatest)] = True
    count = 0
    for row in range(1, greatest + 1):
        count += wanted[row]
    return count


@compiled
def with_room(found: Longs, count: int, more: int) -> Longs:
    """`found`, or a longer copy if it has no room for more."""
    if count + more <= len(found):
        return found
    longer = np.empty((2 * (count + more), 5), np.int64)
    for i in range(count):
        copy_numbers(found[i], longer[i])
    return longer


@compiled
def copy_numbers(source: Longs, target: Longs) -> None:
    """Fill in as many numbers as there is room for; a slice assignment takes seconds to compile."""
    for i in range(len(target)):
        target[i] = source[i]


@compiled
def add_box(forest: Forest, component: int, grow: int, limits: Longs, row: int, found: Longs, count: int) -> int:
    """Append x, y, x + w, y + h of a component, in the map without its ring and at most `limits`, and its row."""
    found[count, 0] = forest.x0[component] - 1 - grow
    found[count, 1] = forest.y0[component] - 1 - grow
    found[count, 2] = min(forest.x1[component] + grow, limits[0])
    found[count, 3] = min(forest.y1[component] + grow, limits[1])
    found[count, 4] = row
    return count + 1


@compiled
def add_outer_boxes(greatest: int, limits: Longs, found: Longs) -> int:
    """Write the rows of the mask of the whole map and of that without a pixel; how many they are."""
    for row in range(2):
        found[row, 0] = found[row, 1] = 0
        found[row, 2] = limits[2 * row]
        found[row, 3] = limits[2 * row + 1]
    found[0, 4] = 0
    found[1, 4] = greatest + 1
    return 2


@compiled
def sweep(
    levels: Levels, holes: bool, all_contours: bool, wanted: Wanted, limits: Longs, room: Room, found: Longs, count: int
) -> tuple[Longs, int]:
    """Append the largest component of each mask, or all of them, or all holes: components of the inverted map."""
    flags, left = wanted
    segments, events, forest = room
    greatest = int(levels.max())
    reach, grow, top, bottom = 1, 0, greatest, 0
    if holes:
        levels, reach, grow, top, bottom = ~levels, 0, 1, 255, 255 - greatest
    find_events(levels, reach, segments, events)
    forest.number[0] = 0
    for level in range(top, bottom, -1):
        descend(level, segments, events, forest)
        row = 256 - level if holes else level
        if not flags[row]:
            continue
        found = with_room(found, count, int(forest.number[0]))
        if not all_contours:
            count = add_box(forest, largest(levels, level, forest), grow, limits, row, found, count)
        for i in range(forest.number[0] if all_contours else 0):
            component = int(forest.alive[i])
            if component != 0:  # the segment of the ring's first row: what is around the map
                count = add_box(forest, component, grow, limits, row, found, count)
        left -= 1
        if left == 0:
            break
    return found, count


@compiled
def lower(levels: Levels, flags: Flags) -> None:
    """Lower each level to the greatest row asked for: the masks of those rows stay, and less happens in between."""
    kept = np.zeros(256, np.uint8)
    for level in range(1, 256):
        kept[level] = level if flags[level] else kept[level - 1]
    pixels = levels.reshape(-1)
    for i in range(len(pixels)):
        pixels[i] = kept[pixels[i]]


@compiled
def find_boxes(
    levels: Levels, limits: Longs, all_contours: bool, wanted: Wanted, room: Room, found: Longs
) -> tuple[Longs, int]:
    """The boxes of the wanted rows and how many, (K, 5) x0, y0, x1, y1, row, in no order.

    `found` is written over, and `levels` are lowered.
    """
    count = add_outer_boxes(int(levels.max()), limits, found)
    lower(levels, wanted[0])
    for holes in range((1 + all_contours) * (wanted[1] > 0)):
        found, count = sweep(levels, holes == 1, all_contours, wanted, limits, room, found, count)
    return found, count


@compiled
def sort_by_row(found: Longs, count: int, first: Longs) -> Longs:
    """The boxes in the order of their rows; filled in: where the boxes of each row begin."""
    first[:] = 0
    for i in range(count):
        first[found[i, 4] + 1] += 1
    for row in range(ROWS):
        first[row + 1] += first[row]
    free = first.copy()
    boxes = np.empty((count, 4), np.int64)
    for i in range(count):
        copy_numbers(found[i], boxes[free[found[i, 4]]])
        free[found[i, 4]] += 1
    return boxes


@compiled
def boxes_of_rows(
    batch: Levels, limits: Longs, thresholds: Floats, all_contours: bool, first: Longs, rows: Longs
) -> list[Longs]:
    """The boxes of each of (N, H + 2, W + 2) maps, in the order of their rows; the maps are lowered.

    Only rows that thresholds fall on have boxes. Filled in: where those of row r of map n begin and end, first[n, r]
    and first[n, r + 1]; its rows[n, t].
    """
    room = new_room(batch)
    found = np.empty((ROWS, 5), np.int64)
    flags = np.empty(ROWS, np.bool_)
    boxes = []
    for n in range(len(batch)):
        greatest = int(batch[n].max())
        wanted = flags, want_rows(thresholds, greatest, flags)
        found, count = find_boxes(batch[n], limits, all_contours, wanted, room, found)
        boxes.append(sort_by_row(found, count, first[n]))
        for t in range(len(thresholds)):
            rows[n, t] = table_row(thresholds[t], greatest)
    return boxes


@inlined
def intersection_over_union(x0: float, y0: float, x1: float, y1: float, truth: Floats, last: float) -> float:
    """Of two boxes, with `last` 1 if their last column and row belong to them, else 0."""
    width = min(x1, truth[2]) - max(x0, truth[0]) + last
    height = min(y1, truth[3]) - max(y0, truth[1]) + last
    if width <= 0.0 or height <= 0.0:
        return 0.0
    of_box = (x1 - x0 + last) * (y1 - y0 + last)
    of_truth = (truth[2] - truth[0] + last) * (truth[3] - truth[1] + last)
    return width * height / (of_box + of_truth - width * height)


@compiled
def judge_outer_boxes(found: Longs, judge: Judge, best: Floats) -> None:
    """Fill in the overlap of the mask of the whole map and of that without a pixel."""
    truths, last, _ = judge
    for i in range(len(found)):
        x0, y0, x1, y1, row = found[i]
        best[row] = 0.0
        for j in range(len(truths)):
            best[row] = max(best[row], intersection_over_union(x0, y0, x1, y1, truths[j], last))


@inlined
def overlap(forest: Forest, component: int, grow: int, limits: Longs, judge: Judge) -> float:
    """The greatest intersection over union that a component's box has with any true box."""
    truths, last, _ = judge
    x0, y0 = forest.x0[component] - 1 - grow, forest.y0[component] - 1 - grow
    x1, y1 = min(forest.x1[component] + grow, limits[0]), min(forest.y1[component] + grow, limits[1])
    best = 0.0
    for j in range(len(truths)):
        best = max(best, intersection_over_union(x0, y0, x1, y1, truths[j], last))
    return best


@compiled
def greatest_overlap(forest: Forest, grow: int, limits: Longs, judge: Judge) -> float:
    """That of all components."""
    best = 0.0
    for i in range(forest.number[0]):
        component = forest.alive[i]
        if component != 0:  # as in `sweep`
            best = max(best, overlap(forest, component, grow, limits, judge))
    return best


@inlined
def agreed(forest: Forest, level: int, limits: Longs, judge: Judge) -> float:
    """The overlap of one of the components that may be the largest if all reach the same of the IoUs; else -1."""
    ious = judge[2]
    floor, _ = survey(forest, level)
    common, best = -1, 0.0
    for i in range(forest.number[0]):
        component = forest.alive[i]
        if area_bound(forest, level, component) >= floor:
            best = overlap(forest, component, 0, limits, judge)
            count = 0
            for d in range(len(ious)):
                count += best >= ious[d]
            if common >= 0 and count != common:
                return -1.0
            common = count
    return best


@compiled
def judge_components(
    levels: Levels, wanted: Wanted, limits: Longs, room: Room, judge: Judge, largest_best: Floats, best: Floats
) -> None:
    """Fill in the overlaps of the largest component of each mask and the greatest of any; what is empty stays so.

    Another component may stand for the largest that reaches the same of the IoUs: so the largest is looked for where
    that makes a difference only.
    """
    flags, left = wanted
    segments, events, forest = room
    level = int(levels.max()) + 1
    find_events(levels, 1, segments, events)
    forest.number[0] = 0
    while left > 0:
        level -= 1
        descend(level, segments, events, forest)
        if flags[level]:
            left -= 1
            if len(largest_best) > 0:
                largest_best[level] = agreed(forest, level, limits, judge)
                if largest_best[level] < 0.0:
                    largest_best[level] = overlap(forest, largest(levels, level, forest), 0, limits, judge)
            if len(best) > 0:
                best[level] = greatest_overlap(forest, 0, limits, judge)


@compiled
def judge_holes(levels: Levels, wanted: Wanted, limits: Longs, room: Room, judge: Judge, best: Floats) -> None:
    """Raise the best overlap of each mask to that of its holes, where theirs is more."""
    flags, left = wanted
    segments, events, forest = room
    find_events(~levels, 0, segments, events)
    forest.number[0] = 0
    row = 0
    while left > 0:
        row += 1
        descend(256 - row, segments, events, forest)
        if flags[row]:
            left -= 1
            best[row] = max(best[row], greatest_overlap(forest, 1, limits, judge))


@compiled
def add_hits(best: Floats, greatest: int, thresholds: Floats, ious: Floats, hits: Longs) -> None:
    """Add to (D, T) hits those of a map."""
    for t in range(len(thresholds)):
        reached = best[table_row(thresholds[t], greatest)]
        for d in range(len(ious)):
            hits[d, t] += reached >= ious[d]


@compiled
def count_hits(
    batch: Levels,
    limits: Longs,
    truths: Floats,
    first: Longs,
    thresholds: Floats,
    iou_thresholds: Floats,
    last: float,
    largest_hits: Longs,
    hits: Longs,
) -> None:
    """Add to (D, T) hits each of (N, H + 2, W + 2) maps whose box reaches the IoU with any of its true boxes.

    The true boxes of map n are truths[first[n] : first[n + 1]]; `last` is as for `intersection_over_union`. Boxes are
    those of the largest contours for `largest_hits`, of all for `hits`; one of the two may be (0, T).
    """
    room = new_room(batch)
    found = np.empty((2, 5), np.int64)
    flags = np.empty(ROWS, np.bool_)
    largest_best = np.empty(ROWS if len(largest_hits) > 0 else 0, np.float64)
    best = np.empty(ROWS if len(hits) > 0 else 0, np.float64)
    for n in range(len(batch)):
        greatest = int(batch[n].max())
        wanted = flags, want_rows(thresholds, greatest, flags)
        judge = truths[first[n] : first[n + 1]], last, iou_thresholds
        add_outer_boxes(greatest, limits, found)
        judge_components(batch[n], wanted, limits, room, judge, largest_best, best)
        if len(largest_best) > 0:
            judge_outer_boxes(found, judge, largest_best)
            add_hits(largest_best, greatest, thresholds, iou_thresholds, largest_hits)
        if len(best) > 0:
            judge_holes(batch[n], wanted, limits, room, judge, best)
            judge_outer_boxes(found, judge, best)
            add_hits(best, greatest, thresholds, iou_thresholds, hits)
