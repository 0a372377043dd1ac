// Renders the panels of a dashboard with the components that Grafana's own panels consist of:
// @grafana/ui draws stat, bar gauge, time series and table, @grafana/data applies units, thresholds,
// mappings, overrides, reducers and transformations. Only the state timeline is drawn here: Grafana
// publishes no component for it, so that its rows are boxes with the text and colour of
// @grafana/data.
//
// `window.dashboard` is what panels.py writes: panels with the results of their queries.

import '@fontsource/inter/400.css';
import '@fontsource/inter/500.css';
import 'uplot/dist/uPlot.min.css';
import { useEffect, useMemo, useState } from 'react';
import { createRoot } from 'react-dom/client';
import { firstValueFrom } from 'rxjs';
import {
  applyFieldOverrides,
  createTheme,
  dateTime,
  FieldConfigOptionsRegistry,
  FieldType,
  getDisplayValueAlignmentFactors,
  getFieldDisplayName,
  getFieldDisplayValues,
  identityOverrideProcessor,
  standardTransformers,
  standardTransformersRegistry,
  ThemeContext,
  toDataFrame,
  transformDataFrame,
} from '@grafana/data';
import {
  BarGauge,
  BigValue,
  GlobalStyles,
  PanelChrome,
  TimeSeries,
  VizRepeater,
} from '@grafana/ui';
import { TableNG } from '@grafana/ui/unstable';

const { width, from, to, panels } = window.dashboard;
const theme = createTheme({ colors: { mode: 'dark' } });
const timeRange = {
  from: dateTime(from * 1000),
  to: dateTime(to * 1000),
  raw: { from: dateTime(from * 1000), to: dateTime(to * 1000) },
};

standardTransformersRegistry.setInit(() =>
  [
    standardTransformers.mergeTransformer,
    standardTransformers.filterFieldsByNameTransformer,
    standardTransformers.organizeFieldsTransformer,
  ].map((transformer) => ({
    id: transformer.id,
    name: transformer.name,
    transformation: () => Promise.resolve(transformer),
  }))
);

// The fields' properties that overrides may set; Grafana registers them with its editors.
const property = (path, isCustom) => ({
  id: isCustom ? `custom.${path}` : path,
  path,
  name: path,
  isCustom,
  process: identityOverrideProcessor,
  shouldApply: () => true,
});
const registry = new FieldConfigOptionsRegistry(() => [
  ...['unit', 'min', 'max', 'decimals', 'displayName', 'noValue', 'thresholds', 'mappings', 'links', 'color'].map(
    (path) => property(path, false)
  ),
  ...[
    'drawStyle', 'lineWidth', 'lineStyle', 'lineInterpolation', 'fillOpacity', 'pointSize', 'showPoints',
    'spanNulls', 'stacking', 'scaleDistribution', 'axisSoftMin', 'axisSoftMax', 'barMaxWidth', 'align',
    'cellOptions', 'filterable', 'hidden', 'hideFrom', 'width',
  ].map((path) => property(path, true)),
]);

/** Returns the frames of a panel as Grafana's data source makes them. */
function frames(panel) {
  return panel.results.flatMap(({ refId, format, series }) => {
    if (format === 'table') {
      const labels = [...new Set(series.flatMap(({ labels }) => Object.keys(labels)))].sort();
      const name = panel.results.length > 1 ? `Value #${refId}` : 'Value';
      if (!series.length) {
        return [];
      }
      return toDataFrame({
        refId,
        fields: [
          { name: 'Time', type: FieldType.time, values: series.map(({ times }) => times[0]) },
          ...labels.map((label) => ({
            name: label,
            type: FieldType.string,
            values: series.map(({ labels }) => labels[label] ?? ''),
          })),
          { name, type: FieldType.number, values: series.map(({ values }) => values[0]) },
        ],
      });
    }
    return series.map(({ name, labels, times, values }) =>
      toDataFrame({
        refId,
        fields: [
          { name: 'Time', type: FieldType.time, values: times, config: { interval: panel.step * 1000 } },
          { name: 'Value', type: FieldType.number, values, labels, config: { displayNameFromDS: name } },
        ],
      })
    );
  });
}

/** Replaces the variables of a link that are values of its row. */
function replaceVariables(template, scopedVars) {
  const { frame, field, rowIndex } = scopedVars?.__dataContext?.value ?? {};
  return template.replace(/\$\{__data\.fields\.(\w+)\}|\$\{__value\.raw\}/g, (variable, name) => {
    const found = name ? frame?.fields.find((other) => other.name === name) : field;
    return found && rowIndex !== undefined ? found.values[rowIndex] : variable;
  });
}

function configured(panel, data) {
  const defaults = structuredClone(panel.fieldConfig.defaults);
  defaults.thresholds ??= { mode: 'absolute', steps: [{ color: 'green', value: null }, { color: 'red', value: 80 }] };
  const overrides = structuredClone(panel.fieldConfig.overrides);
  // In JSON, the first step has no value; Grafana reads it as minus infinity.
  for (const { steps } of [
    defaults.thresholds,
    ...overrides.flatMap(({ properties }) =>
      properties.filter(({ id }) => id === 'thresholds').map(({ value }) => value)
    ),
  ]) {
    steps[0].value = -Infinity;
  }
  return applyFieldOverrides({
    data,
    fieldConfig: { defaults, overrides },
    fieldConfigRegistry: registry,
    replaceVariables,
    theme,
    timeZone: 'utc',
  });
}

function values(panel, data) {
  return getFieldDisplayValues({
    fieldConfig: panel.fieldConfig,
    reduceOptions: panel.options.reduceOptions,
    replaceVariables: (text) => text,
    theme,
    data,
    sparkline: false,
    timeZone: 'utc',
  });
}

/** An item of a panel, for the checks. */
function Item({ name, value, color, children }) {
  return (
    <div data-item={name} data-value={value} data-color={color} style={{ width: '100%', height: '100%' }}>
      {children}
    </div>
  );
}

const text = ({ prefix, text, suffix }) => `${prefix ?? ''}${text}${suffix ?? ''}`;

function Stat({ panel, data, width, height }) {
  const { options } = panel;
  return (
    <VizRepeater
      getValues={() => values(panel, data)}
      getAlignmentFactors={getDisplayValueAlignmentFactors}
      width={width}
      height={height}
      source={data}
      itemSpacing={3}
      autoGrid
      renderCounter={0}
      orientation={options.orientation}
      renderValue={({ value, width, height, alignmentFactors, count }) => (
        <Item name={value.display.title} value={text(value.display)} color={value.display.color}>
          <BigValue
            value={value.display}
            count={count}
            colorMode={options.colorMode}
            graphMode={options.graphMode}
            justifyMode={options.justifyMode}
            textMode={options.textMode}
            text={options.text}
            alignmentFactors={alignmentFactors}
            width={width}
            height={height}
            theme={theme}
          />
        </Item>
      )}
    />
  );
}

function Gauges({ panel, data, width, height }) {
  const { options } = panel;
  return (
    <VizRepeater
      getValues={() => values(panel, data)}
      getAlignmentFactors={getDisplayValueAlignmentFactors}
      width={width}
      height={height}
      source={data}
      itemSpacing={10}
      renderCounter={0}
      orientation={options.orientation}
      minVizWidth={options.minVizWidth}
      minVizHeight={options.minVizHeight}
      maxVizHeight={options.maxVizHeight}
      renderValue={({ value, width, height, alignmentFactors, orientation }) => (
        <Item name={value.display.title} value={text(value.display)} color={value.display.color}>
          <BarGauge
            value={value.display}
            width={width}
            height={height}
            orientation={orientation}
            field={value.field}
            display={value.view?.getFieldDisplayProcessor(value.colIndex)}
            theme={theme}
            itemSpacing={10}
            lcdCellWidth={8}
            displayMode={options.displayMode}
            alignmentFactors={alignmentFactors}
            showUnfilled={options.showUnfilled}
            valueDisplayMode={options.valueMode}
            namePlacement={options.namePlacement}
          />
        </Item>
      )}
    />
  );
}

function Lines({ panel, data, width, height }) {
  // Every series with its colour, for the checks; the picture has the same in the legend.
  const series = data.map((frame) => {
    const field = frame.fields[1];
    const name = getFieldDisplayName(field, frame, data);
    const last = field.values.findLast((value) => value !== null);
    const sum = field.values.reduce((sum, value) => sum + value, 0);
    return { name, last, sum, text: last === undefined ? '' : text(field.display(last)), color: field.display(last).color };
  });
  return (
    <>
      {series.map(({ name, text, color, sum }) => (
        <span key={name} hidden data-item={name} data-value={text} data-color={color} data-sum={sum} />
      ))}
      <TimeSeries
        frames={data}
        structureRev={1}
        width={width}
        height={height}
        timeRange={timeRange}
        timeZone="utc"
        legend={panel.options.legend}
        options={{}}
      >
        {(builder) => {
          builder.addHook('draw', (plot) => drawAnnotations(plot));
          return null;
        }}
      </TimeSeries>
    </>
  );
}

function drawAnnotations(plot) {
  for (const { time, color } of window.dashboard.annotations) {
    const x = Math.round(plot.valToPos(time * 1000, 'x', true));
    if (x >= plot.bbox.left && x <= plot.bbox.left + plot.bbox.width) {
      plot.ctx.save();
      plot.ctx.strokeStyle = theme.visualization.getColorByName(color);
      plot.ctx.setLineDash([4, 4]);
      plot.ctx.beginPath();
      plot.ctx.moveTo(x, plot.bbox.top);
      plot.ctx.lineTo(x, plot.bbox.top + plot.bbox.height);
      plot.ctx.stroke();
      plot.ctx.restore();
    }
  }
}

function Timeline({ panel, data, width, height }) {
  const names = data.map((frame) => getFieldDisplayName(frame.fields[1], frame, data));
  const labels = Math.min(16 + 7 * Math.max(...names.map((name) => name.length)), width / 3);
  const axis = 20;
  const row = (height - axis) / data.length;
  const at = (milliseconds) => ((milliseconds / 1000 - from) / (to - from)) * (width - labels);
  const ticks = Array.from({ length: 6 }, (_, index) => from + ((to - from) * (index + 0.5)) / 6);
  return (
    <div style={{ position: 'relative', width, height, fontSize: 12 }}>
      {data.map((frame, index) => {
        const [time, field] = frame.fields;
        const name = getFieldDisplayName(field, frame, data);
        const segments = [];
        time.values.forEach((start, position) => {
          const value = field.values[position];
          const end = start + panel.step * 1000;
          const last = segments.at(-1);
          if (value === null) {
            return;
          }
          if (last && last.value === value && last.end >= start) {
            last.end = end;
          } else {
            segments.push({ value, start, end });
          }
        });
        return (
          <div key={name} style={{ position: 'absolute', top: index * row, height: row, width }}>
            <div
              data-cut
              style={{ position: 'absolute', width: labels - 8, top: (row - 18) / 2, textAlign: 'right', whiteSpace: 'nowrap', overflow: 'hidden', color: theme.colors.text.primary }}
            >
              {name}
            </div>
            {segments.map(({ value, start, end }) => {
              const shown = field.display(value);
              const left = at(Math.max(start, from * 1000));
              const size = at(Math.min(end, to * 1000)) - left;
              return (
                <div
                  key={start}
                  data-item={name}
                  data-value={text(shown)}
                  data-color={shown.color}
                  style={{
                    position: 'absolute', left: labels + left, width: Math.max(1, size), top: row * 0.08, height: row * 0.84,
                    background: shown.color, color: theme.colors.getContrastText(shown.color), lineHeight: `${row * 0.84}px`,
                    overflow: 'hidden', paddingLeft: size > 12 ? 4 : 0, whiteSpace: 'nowrap', boxSizing: 'border-box',
                  }}
                >
                  {size > 60 ? text(shown) : ''}
                </div>
              );
            })}
          </div>
        );
      })}
      {ticks.map((tick) => (
        <div key={tick} style={{ position: 'absolute', bottom: 0, left: labels + at(tick * 1000) - 20, color: theme.colors.text.secondary }}>
          {new Date(tick * 1000).toISOString().slice(11, 16)}
        </div>
      ))}
    </div>
  );
}

function Rows({ panel, data, width, height }) {
  const frame = data[0];
  const shown = frame.fields.filter((field) => !field.config.custom?.hideFrom?.viz);
  return (
    <>
      {Array.from({ length: frame.length }, (_, row) =>
        shown.map((field) => {
          const cell = field.display(field.values[row]);
          const name = getFieldDisplayName(field, frame, data);
          return (
            <span key={`${row} ${name}`} hidden data-row={row} data-item={name} data-value={text(cell)} data-color={cell.color} />
          );
        })
      )}
      <TableNG
        data={frame}
        width={width}
        height={height}
        sortBy={panel.options.sortBy}
        cellHeight={panel.options.cellHeight}
        timeRange={timeRange}
        fieldConfig={panel.fieldConfig}
        structureRev={1}
        getActions={() => []}
      />
    </>
  );
}

const kinds = { stat: Stat, bargauge: Gauges, timeseries: Lines, 'state-timeline': Timeline, table: Rows };

function Content({ panel, width, height }) {
  const [data, setData] = useState();
  useEffect(() => {
    const context = { interpolate: (text) => text };
    firstValueFrom(transformDataFrame(panel.transformations ?? [], frames(panel), context)).then((data) =>
      setData(configured(panel, data))
    );
  }, []);
  if (!data) {
    return null;
  }
  if (!data.some((frame) => frame.length)) {
    return (
      <div
        data-item="" data-value={panel.fieldConfig.defaults.noValue}
        style={{ height, display: 'flex', alignItems: 'center', justifyContent: 'center', color: theme.colors.text.secondary }}
      >
        {panel.fieldConfig.defaults.noValue}
      </div>
    );
  }
  const Kind = kinds[panel.type];
  return <Kind panel={panel} data={data} width={width} height={height} />;
}

// Grafana's grid: 24 columns, rows of 30 pixels, gaps of 8.
const gap = 8;
const columnWidth = (width - gap * 25) / 24;

function Panel({ panel }) {
  const { x, y, w, h } = panel.gridPos;
  const box = {
    left: gap + x * (columnWidth + gap),
    top: y * (30 + gap),
    width: w * columnWidth + (w - 1) * gap,
    height: h * 30 + (h - 1) * gap,
  };
  return (
    <div data-panel={panel.title} data-kind={panel.type} style={{ position: 'absolute', ...box }}>
      {panel.type === 'row' ? (
        <div style={{ fontSize: 16, lineHeight: '30px', color: theme.colors.text.primary }}>{panel.title}</div>
      ) : (
        <PanelChrome title={panel.title} width={box.width} height={box.height}>
          {(width, height) => <Content panel={panel} width={width} height={height} />}
        </PanelChrome>
      )}
    </div>
  );
}

function Dashboard() {
  const height = Math.max(...panels.map(({ gridPos: { y, h } }) => y + h)) * (30 + gap);
  useEffect(() => {
    document.title = 'rendered';
  }, []);
  return (
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <div style={{ position: 'relative', width, height }}>
        {panels.map((panel) => (
          <Panel key={panel.id} panel={panel} />
        ))}
      </div>
    </ThemeContext.Provider>
  );
}

createRoot(document.getElementById('root')).render(<Dashboard />);
